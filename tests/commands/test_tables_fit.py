"""Every table fits a terminal of 80, 120 and 180 columns, and in LaTeX a page; no two of its columns have one name."""

import json
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from latex_pages import complaints
from report_stores import mixed_store

from analyzer.cli.main import main
from analyzer.compare.two_axis_verdict import VERDICTS
from analyzer.gate.gate import FAIL, INCONCLUSIVE, NOT_JUDGED, PASS
from analyzer.tables import columns
from analyzer.tables.latex import PACKAGES
from analyzer.tables.terminal import render
from analyzer.tables.verdict_colors import COLORS
from producer.cli.main import main as produce_main
from store.cli.main import main as store_main
from store.shown import aligned, fitted

pytestmark = pytest.mark.usefixtures("swaps_drawn_once")
ROOT = Path(__file__).parents[2]
PRICES = "[prices]\nanswer = 1\nask_again = 2\nreview = 3\nabstain = 4\nwrong = 5\n"
COMMANDS = (
    "sets", "sets --p-values --model small-7b --method dense --task quiz --scorer lac", "sets --average", "compare", "compare --average",
    "compare --decoupling", "sensitivity --model small-1b --task quiz", "transfer", "transfer --from task", "guarantee", "frontier",
    "cliffs", "scale", "cost --prices {prices}", "gate --limit accuracy_loss=0.02 --limit set_size_growth=0.1",
)  # fmt: skip
ONE = ("compare", "--model", "small-1b", "--task", "quiz", "--scorer", "lac")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with long names, two tasks and prompts, a run of NaN and one without partner."""
    return mixed_store(tmp_path_factory.mktemp("wide"))


@pytest.mark.large
@pytest.mark.parametrize("command", COMMANDS)
def test_every_table_fits_its_terminal(command: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of a table is longer than the terminal, and a figure's two ends stay on one line; prose around the table may be longer."""
    prices = tmp_path / "prices.toml"
    prices.write_text(PRICES)
    for width in (80, 120, 180):
        monkeypatch.setenv("COLUMNS", str(width))
        result = CliRunner().invoke(main, [*command.format(prices=prices).split(), "--store", url])
        assert result.exit_code in (0, 1, 3), result.output
        table = result.stdout.split("\n\n")[1].splitlines()
        assert len(table) > 2 and max(map(len, table)) <= width, (width, max(table, key=len))
        assert not any(re.search(r"\[[^\])]*$", line) for line in table)


@pytest.mark.large
@pytest.mark.parametrize("command", COMMANDS)
def test_every_latex_table_fits_a_page(command: str, url: str, tmp_path: Path) -> None:
    """It compiles with the packages that a report names, and nothing on its pages is cut or missing."""
    prices = tmp_path / "prices.toml"
    prices.write_text(PRICES)
    result = CliRunner().invoke(main, [*command.format(prices=prices).split(), "--store", url, "--format", "latex"])
    assert result.exit_code in (0, 1, 3), result.output
    assert complaints(f"{PACKAGES}\n{result.stdout}", tmp_path) == []


@pytest.mark.parametrize("command", ["ls", "log", "show", "diff"])
def test_every_table_of_a_store_fits_its_terminal(command: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As analyze's tables do; names and times are whole at 120 columns, and in a pipe every row is one line."""
    snapshots = [row["snapshot"] for row in json.loads(CliRunner().invoke(store_main, ["log", "--store", url, "--format", "json"]).stdout)]
    words = [command, *([snapshots[1]] if command == "diff" else []), "--store", url]
    monkeypatch.delenv("COLUMNS", raising=False)
    in_a_pipe = CliRunner().invoke(store_main, words).stdout.splitlines()
    for width in (80, 120, 180):
        monkeypatch.setenv("COLUMNS", str(width))
        result = CliRunner().invoke(store_main, words)
        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()
        assert max(map(len, lines)) <= width, (width, max(lines, key=len))
        assert len(lines) == len(in_a_pipe) or width == 80 or command == "show"
    if command == "ls":
        names = [line.split()[0] for line in in_a_pipe[1:]]
        assert len(names) > 5 and all(name.count("~") in (3, 4) and name in "\n".join(lines) for name in names)


def test_what_every_row_says_stands_above_before_a_column_is_lost() -> None:
    """The rows of the demo's table: with all columns where they fit, else the coverage that all share and two lines of a verdict first."""
    records = json.loads((ROOT / "docs" / "demo.json").read_text())
    whole, narrower = (render(records, columns.COMPARE, width).split("\n\n") for width in (186, 165))
    assert "coverage 0.900" not in whole[0] and "coverage" in whole[1] and "accuracy holds, sets grow" in whole[1]
    assert narrower[0].endswith(" · coverage 0.900") and "coverage" not in narrower[1]
    assert len(re.findall(r"<0\.001", narrower[1])) == len(re.findall(r"<0\.001", whole[1])) == 4  # p-values of both changes
    assert re.search(r"accuracy holds,\n +sets grow\n", narrower[1]) and max(map(len, narrower[1].splitlines())) <= 165


def test_verdicts_go_on_below_before_figures_do() -> None:
    """A column that may break gives way first, although another is wider."""
    rows = [["figure of a run", "verdict"], ["0.123 [0.100, 0.146]", "accuracy holds"]]
    assert fitted(rows, (), 30, None, (1,)) == [
        ["figure of a run       verdict"],
        ["0.123 [0.100, 0.146]  accuracy", "                      holds"],
    ]


@pytest.mark.producer
@pytest.mark.parametrize("words", ["--list methods", "--list settings", "--list plans", "--list models", "--model ref-s --dry-run"])
def test_lists_and_dry_runs_fit_the_terminal(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of a table is longer than the terminal and no word is broken; the same words are in a pipe, but for papers of methods."""
    asked = [*words.split(), *(["--task", "urn", "--store", str(tmp_path / "store")] if "--dry-run" in words else [])]
    monkeypatch.delenv("COLUMNS", raising=False)
    in_a_pipe = CliRunner().invoke(produce_main, asked).stdout
    for width in (80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        shown = CliRunner().invoke(produce_main, asked)
        assert shown.exit_code == 0, shown.output
        table = shown.stdout.splitlines()[:2] if "--dry-run" in words else shown.stdout.splitlines()
        assert max(map(len, table)) <= width
        words_shown, words_piped = shown.stdout.split(), in_a_pipe.split()
        assert set(words_shown) <= set(words_piped)
        assert words == "--list methods" or sorted(words_shown) == sorted(words_piped)


def test_a_comparison_says_what_counts_as_no_change(url: str) -> None:
    """The verdicts are those of two numbers, which stand below the table, in Markdown and LaTeX too, and not in what programs read."""
    for form in ("table", "markdown", "latex"):
        told = CliRunner().invoke(main, [*ONE, "--store", url, "--format", form, "--accuracy-tolerance", "0.015"]).stdout
        assert told.count("accuracy losses up to 0.015 and growth of the mean set size up to 0.1 options count as no change") == 1
    for form in ("json", "csv"):
        assert "count as" not in CliRunner().invoke(main, [*ONE, "--store", url, "--format", form]).stdout


def test_verdicts_have_colours_where_they_are_asked_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never in a pipe unless asked, never in what programs read; and the table is the same but for them."""
    monkeypatch.setenv("COLUMNS", "100")

    def told(*words: str) -> str:
        return CliRunner().invoke(main, [*words, "--store", url]).stdout

    for words in (ONE, ("gate", *ONE[1:], "--limit", "accuracy_loss=0.02")):
        plain, painted = told(*words), told(*words, "--color", "always")
        assert "\x1b" not in plain + told(*words, "--color", "never")
        assert {code for code in re.findall(r"\x1b\[\d+m", painted)} > {"\x1b[0m"}
        assert click.unstyle(painted) == plain
        for form in ("json", "csv", "markdown", "latex"):
            assert "\x1b" not in told(*words, "--color", "always", "--format", form)


def test_every_verdict_has_a_colour() -> None:
    """Green may ship, red must not, yellow is undecided."""
    assert {*VERDICTS, PASS, FAIL, INCONCLUSIVE, NOT_JUDGED} <= set(COLORS)


@pytest.mark.parametrize(("words", "no_color", "colored"), [((), "", True), ((), "1", False), (("--color", "always"), "1", True)])
def test_a_terminal_has_colours_unless_no_color_is_set(words: tuple[str, ...], no_color: str, colored: bool, url: str) -> None:
    """The command in a real pseudo-terminal: https://no-color.org, and an option that decides before it."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": no_color}
    asked = [sys.executable, "-m", "analyzer", *ONE, "--store", url, *words]
    process = subprocess.Popen(asked, stdout=follower, stderr=subprocess.DEVNULL, env=environment)
    os.close(follower)
    told = b""
    with suppress(OSError):  # the terminal is closed when the command ends
        while piece := os.read(leader, 65_536):
            told += piece
    os.close(leader)
    assert process.wait() == 0 and b"set size" in told
    assert (b"\x1b[3" in told) == colored


@pytest.mark.parametrize("name", [name for name, value in vars(columns).items() if isinstance(value, tuple)])
def test_no_two_columns_of_a_table_have_one_name(name: str) -> None:
    """A title alone says what a column holds."""
    titles = [column.title for column in getattr(columns, name)]
    assert len(titles) == len(set(titles))


@given(st.lists(st.lists(st.text("ab ", max_size=30), min_size=3, max_size=3), min_size=1, max_size=4), st.integers(24, 60))
def test_what_does_not_fit_goes_on_below(rows: list[list[str]], width: int) -> None:
    """Three columns of words fit 24 characters and more whatever they are, and no character but spaces is lost."""
    lines = [line for row in fitted(rows, (1,), width) for line in row]
    assert max(map(len, lines)) <= width
    assert sorted("".join(lines).replace(" ", "")) == sorted("".join(map("".join, rows)).replace(" ", ""))


def test_titles_go_on_before_cells_do() -> None:
    """A title of two words has two lines before a cell has, texts break at their spaces, only then names, and figures never."""
    rows = [["long title", "n"], ["a cell", "12"], ["name", "3"]]
    assert aligned(rows, (1,)) == ["long title   n", "a cell      12", "name         3"]
    assert fitted([["name", "12,345,678 [0.5, 1.0]"]], (), 10) == [["name  12,345,678", "      [0.5, 1.0]"]]
    assert fitted(rows, (1,), 10) == [["long     n", "title"], ["a cell  12"], ["name     3"]]
    assert fitted([["     ", "12,345"]], (), 8) == [["  12,345"]]  # a column of spaces has no width
