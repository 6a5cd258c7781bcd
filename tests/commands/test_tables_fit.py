"""Every table fits a terminal of 80, 120 and 180 columns, and no two of its columns have one name."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from report_stores import mixed_store

from analyzer.cli.main import main
from analyzer.tables import columns
from store.shown import aligned, fitted

PRICES = "[prices]\nanswer = 1\nask_again = 2\nreview = 3\nabstain = 4\nwrong = 5\n"
COMMANDS = (
    "sets", "sets --p-values --model small-7b --method dense --task quiz --scorer lac", "sets --average", "compare", "compare --average",
    "compare --decoupling", "sensitivity --model small-1b --task quiz", "transfer", "transfer --from task", "guarantee", "frontier",
    "cliffs", "scale", "cost --prices {prices}", "gate --limit accuracy_loss=0.02 --limit set_size_growth=0.1",
)  # fmt: skip


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with long names, two tasks and prompts, a run of NaN and one without partner."""
    return mixed_store(tmp_path_factory.mktemp("wide"))


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
        assert not any(re.search(r"\[[^\]]*$", line) for line in table)


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
