"""The glossary, the help of the commands and the columns that they print use the same words."""

import re
from pathlib import Path

import click
import pytest

import analyzer.cli.main
import analyzer.tables.columns
import producer.cli.main
import store.cli.main
from analyzer.measure.cell import ESTIMATED, FACTS, MORE
from analyzer.tables.terminal import Column
from schemas.fields import FIELDS

GLOSSARY = (Path(__file__).parents[2] / "docs" / "glossary.md").read_text(encoding="utf-8")
TITLES = sorted({
    re.sub(r" *\(.*\)", "", column.title.removeprefix("Δ "))
    for table in vars(analyzer.tables.columns).values()
    if isinstance(table, tuple)
    for column in table
    if isinstance(column, Column) and not re.fullmatch("[A-Z]", column.title)
})
MAINS = (analyzer.cli.main.main, store.cli.main.main, producer.cli.main.main)
# Words that the glossary says are something else here; each stands in the help only where another tool's term is quoted.
FOREIGN = ("hyperparameter", "baseline", "ground truth", "qhat", "confidence level", "few-shot", "datapoint", "sample of")


def commands() -> list[click.Command]:
    return [command for main in MAINS for command in (main, *getattr(main, "commands", {}).values())]


def entries() -> set[str]:
    """The words that the glossary explains: first cells of its tables, split at commas that a space follows."""
    rows = [line.split("|")[1] for line in GLOSSARY.splitlines() if line.startswith("| ") and not line.startswith("| word")]
    return {word.strip() for row in rows for word in row.split(", ")}


@pytest.mark.parametrize(
    "column", [*FIELDS, *ESTIMATED, *MORE, "n_calibration", "alpha", "scorer", "group", "protocol", "unreliable", "flips", "kl"]
)
def test_every_column_is_explained(column: str) -> None:
    """A column that the tables print stands in the glossary, by itself or beside the word that it abbreviates."""
    assert column in entries() or f"`{column}`" in GLOSSARY


@pytest.mark.parametrize("title", TITLES)
def test_every_title_of_a_table_is_explained(title: str) -> None:
    """A title that a table prints is a word of the glossary; a change is explained by the word that changes."""
    assert title in entries()


def test_facts_are_spreads_or_parameters() -> None:
    """Facts beside the estimates are spreads over splits of explained columns, a scorer's parameters, or explained themselves."""
    assert all(fact.removesuffix("_sd") in ESTIMATED or fact == "parameters" or f"`{fact}`" in GLOSSARY for fact in FACTS)


@pytest.mark.parametrize("option", sorted(set(re.findall(r"`(--[a-z-]+)`", GLOSSARY))))
def test_every_option_of_the_glossary_exists(option: str) -> None:
    """An option that the glossary names is one of a command's."""
    assert any(option in parameter.opts for command in commands() for parameter in command.params)


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(?:analyze|store|produce) ([a-z]+)`", GLOSSARY))))
def test_every_command_of_the_glossary_exists(named: str) -> None:
    """A command that the glossary names exists."""
    assert any(named in getattr(main, "commands", {}) for main in MAINS)


def test_help_speaks_the_glossarys_words() -> None:
    """No help text uses a word for which the glossary has another."""
    texts = {command.name: command.get_help(click.Context(command)).lower() for command in commands()}
    assert not [(name, word) for name, text in texts.items() for word in FOREIGN if word in text]
