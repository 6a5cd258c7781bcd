"""Every command line that a page shows is one that the real command takes, and every option that a page names exists.

Nothing runs here: click parses each line, with all its types. The lines of the tutorials are run when the site is built (`test_site.py`),
those of docs/ship.sh, docs/ci and docs/run_time.md by the tests in `tests/shipping`.
"""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

import analyzer.cli.main
import producer.cli.main
import store.cli.main

ROOT = Path(__file__).parents[2]
MAINS = {"analyze": analyzer.cli.main.main, "store": store.cli.main.main, "produce": producer.cli.main.main}
FOLDERS = ("analyzer", "docs", "producer", "schemas", "store")
PATTERNS = ("*.md", "docs/ci/*.yml", "docs/*.sh", *(f"{folder}/**/*.md" for folder in FOLDERS))
CHANGED = {"CHANGELOG.md"}  # names options that are gone
PAGES = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern) if path.name not in CHANGED and "_site" not in path.parts)
COMMAND = re.compile(r"^[ $]*(?:run: |Example: )?(?:[A-Z_]+=\S+ )*(?:hedgemark )?((?:analyze|store|produce) .*)$", re.M)
INLINE = re.compile(r"(?<!`)`(?:hedgemark )?((?:analyze|store|produce) [^`]*)`(?!`)")
OPTION = re.compile(r"(?<!`)`(--[a-z][a-z-]*)")
DOCKER = {"--file", "--tag", "--rm", "--volume", "--gpus", "--entrypoint"}
FOREIGN = {"--logprobs", "--top-logprobs"} | DOCKER  # the first two are options of inspect, which writes logs that are imported

ADDED_BY_RECIPES = "store import plain-json"  # by docs/contributing.md, followed in test_contributing.py


def words_of(line: str) -> list[str]:
    """The words of a command line up to a comment, a pipe, a redirection or the next command."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return []
    end = next((i for i, word in enumerate(words) if word in {"|", "||", "&&", ";", "<"} or re.match(r"\d?>", word)), None)
    return [word.rstrip(";") for word in words[:end]]


def shown(path: Path) -> list[str]:
    """The command lines of a page that stand on a line of code, with the values that the page gives to variables of the shell."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    code = re.findall(r"(?:^    .*\n?)+|^ *```.*?^ *```|\A#!.*", text, re.M | re.S)
    blocks = [line for block in code for line in COMMAND.findall(block)]
    if path.suffix == ".yml":
        blocks = COMMAND.findall(re.sub(r"(?m)^ *-? ", "", text))
    values = dict(re.findall(r"""^ *([A-Za-z_]+)(?:: |=)["']?([^"'#\n]+?)["']?(?: *#.*)?$""", text, re.M))
    lines = [re.sub(r"\$([A-Za-z_]+)", lambda name: values.get(name[1], name[0]), line) for line in blocks]
    return [line for line in lines if "[OPTIONS]" not in line and not line.startswith(ADDED_BY_RECIPES)]


def fragments(path: Path) -> list[str]:
    """The commands that stand in the text of a page, not all of them whole."""
    return [line.replace("\n", " ") for line in INLINE.findall(path.read_text(encoding="utf-8")) if " --" in line]


LINES = sorted({(str(path.relative_to(ROOT)), line.strip()) for path in PAGES for line in shown(path)})


def parse(words: list[str]) -> click.Context:
    """The context of a command after its words were parsed; click's own error if it does not take them."""
    command, rest = command_of(words)
    return command.make_context(words[0], rest)


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that words begin with, and the words after its name."""
    command, rest = MAINS[words[0]], words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name, *rest = rest
        command = command.get_command(click.Context(command), name) or pytest.fail(f"there is no command {name}")
    return command, rest


@pytest.fixture
def any_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that a page only names need not exist."""
    monkeypatch.setattr(click.Path, "convert", lambda _self, value, *_rest: Path(value))


@pytest.mark.usefixtures("any_path")
@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{page}: {line[:60]}" for page, line in LINES])
def test_the_command_takes_the_line(page: str, line: str) -> None:
    """The command, its options, their values and what it requires are as the page shows them."""
    words = words_of(line)
    try:
        parse(words)
    except click.exceptions.Exit:
        assert {"--version", "--help", "--list"} & set(words)
    except click.UsageError as error:
        pytest.fail(f"{page} shows `{line}`: {error.format_message()}")


@pytest.mark.parametrize("path", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
def test_the_command_has_the_options_named_with_it(path: Path) -> None:
    """A command in the text of a page, even if it is not whole, exists and has the options that stand behind it."""
    for line in fragments(path):
        command, rest = command_of(words_of(line))
        named = {word.split("=")[0] for word in rest if word.startswith("--")}
        assert named and not named - options_of(command), line


def test_lines_are_found() -> None:
    """The pages show many commands, among them lines with a variable before them, a comment behind them, or a continuation."""
    lines = [line for _, line in LINES]
    assert len(lines) > 60
    for start in ("analyze report --at v1", "store push s3://", "produce --backend server", "analyze gate --against ref-m"):
        assert any(line.startswith(start) for line in lines), start
    assert {words_of(line)[0] for line in lines} == set(MAINS)


def options_of(command: click.Command) -> set[str]:
    """The names of a command's options."""
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


def every_option() -> set[str]:
    """The options of all commands."""
    options, commands = set(FOREIGN), list[Any](MAINS.values())
    while commands:
        command = commands.pop()
        options |= options_of(command)
        if isinstance(command, click.Group):
            commands += [command.get_command(click.Context(command), name) for name in command.list_commands(click.Context(command))]
    return options


@pytest.mark.parametrize("path", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
def test_every_option_that_a_page_names_exists(path: Path) -> None:
    """An option in the text is one of a command, of the page's own script, or of another program that the page names."""
    named = set(OPTION.findall(path.read_text(encoding="utf-8")))
    assert not named - every_option()


def test_a_wrong_line_is_noticed() -> None:
    """An option that does not exist, a value of the wrong kind and a command that does not exist are errors."""
    for line in ("analyze sets --alfa 0.1", "produce --limit many", "store push"):
        with pytest.raises(click.UsageError):
            parse(words_of(line))
    with pytest.raises(pytest.fail.Exception, match="there is no command"):
        parse(["analyze", "everything"])


@pytest.mark.parametrize("path", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
def test_every_extra_that_a_page_installs_exists(path: Path) -> None:
    """`hedgemark[NAME]` on a page is an extra of the package."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(re.findall(r"hedgemark\[([\w-]+)\]", path.read_text(encoding="utf-8"))) <= set(extras)


def test_every_extra_is_explained() -> None:
    """The page on installing says what each extra is for."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    rows = re.findall(r"^\| (`[^|]+`) \|", (ROOT / "docs" / "install.md").read_text(encoding="utf-8"), re.M)
    assert {name.strip("` ") for row in rows for name in row.split(",") if "pip" not in name} == set(extras)


@pytest.mark.parametrize("page", ["README.md", "docs/contributing.md"])
def test_every_make_target_exists(page: str) -> None:
    """`make NAME` on a page is a target of the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`|^    )make ([a-z-]+)", (ROOT / page).read_text(encoding="utf-8"), re.M))
    assert named and all(re.search(rf"^{name}:", makefile, re.M) for name in named)
