"""The house: light imports, documented commands, and names that a reader can find."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import analyzer.cli.main
import producer.cli.main
import store.cli.main
from analyzer.scorers import SCORERS
from producer.methods import METHODS
from producer.prompts.templates import PROMPTS
from producer.tasks import EMBEDDED
from schemas.benchmark import BENCHMARK

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
GROUPS = {"analyze": analyzer.cli.main.main, "store": store.cli.main.main, "produce": producer.cli.main.main}


def commands() -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name, group in GROUPS.items():
        children = group.commands if isinstance(group, click.Group) else {}
        found += [(name, group), *((f"{name} {child}", command) for child, command in children.items())]
    return found


def test_reading_needs_no_torch() -> None:
    """Schemas, store and analyzer, their commands included, import without torch and transformers."""
    imports = "import analyzer.cli.main, store.cli.main, producer.cli.main, schemas.run, sys"
    code = f"{imports}; print({{'torch', 'transformers'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(("name", "command"), commands(), ids=[name for name, _ in commands()])
def test_every_command_explains_itself(name: str, command: click.Command) -> None:
    """Every command has a sentence of help and an example; every option says what it is for."""
    text = command.get_help(click.Context(command, info_name=name))
    assert command.help and "Example" in text
    assert all(getattr(parameter, "help", "") for parameter in command.params if isinstance(parameter, click.Option))


@pytest.mark.parametrize(("name", "command"), commands(), ids=[name for name, _ in commands()])
def test_every_option_shows_a_value(name: str, command: click.Command) -> None:
    """An option that takes a value shows one: in the command's example, as its default or choices, or as "such as .."."""
    context = click.Context(command, info_name=name)
    example = command.get_help(context).split("Example")[-1].split("Options:")[0]
    takes_value = [p for p in command.params if isinstance(p, click.Option) and not (p.is_flag or p.count)]
    shown = {p.opts[-1]: " ".join(p.get_help_record(context) or ()) for p in takes_value}
    bare = [option for option, text in shown.items() if option not in example and not re.search(r"\[[^\]]+\]|such as|e\.g\.|: \S", text)]
    assert not bare


@pytest.mark.parametrize("name", [*METHODS, *EMBEDDED, *BENCHMARK, *PROMPTS, *SCORERS, *(name for name, _ in commands())])
def test_every_name_is_in_the_readme(name: str) -> None:
    """A registered method, task, prompt, scorer or command that README does not mention is not there for its reader."""
    assert re.search(rf"(?<![\w-]){re.escape(name.rsplit(maxsplit=1)[-1])}(?![\w-])", README), f"{name}: run make readme"


def test_no_file_names_a_machine() -> None:
    """No tracked text file holds an absolute path of somebody's home or workplace."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    texts = [ROOT / file for file in files if file.endswith((".py", ".md", ".toml", ".txt", ".sh")) and (ROOT / file).exists()]
    pattern = re.compile(r"/(?:home|root|work|Users)/" + r"\w")
    assert texts and not [file.name for file in texts if pattern.search(file.read_text(encoding="utf-8"))]
