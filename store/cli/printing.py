"""Print tables and records as text, JSON or CSV on stdout."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from store.shown import csv_text, dispensed, fitted, json_text, terminal_width

if TYPE_CHECKING:
    import polars as pl

P = ParamSpec("P")
R = TypeVar("R")


def format_option(command: Callable[P, R]) -> Callable[P, R]:
    """Add `--format table|json|csv` to a click command."""
    formats = click.Choice(["table", "json", "csv"])
    return click.option("--format", "format_", type=formats, default="table", show_default=True, help="How to print.")(command)


def print_table(table: "pl.DataFrame", format_: str, dispensable: Sequence[str] = (), empty: str = "nothing to list") -> None:
    """Print a table in a format; of one without rows a reader gets the words of `empty` on stderr.

    As text it fits the terminal: columns without any text are left out, then the last of the `dispensable` ones, and what is still too long
    goes on below. In a pipe or a file every row is one line, so that awk can read it; `COLUMNS` gives that a width too.
    """
    if format_ == "json":
        click.echo(json_text(table.to_dicts(), indent=1))
    elif format_ == "csv":
        click.echo(csv_text(table), nl=False)
    elif table.is_empty():
        click.echo(empty, err=True)
    else:
        click.echo(_text(table, dispensable))


def print_record(record: Mapping[str, Any], format_: str) -> None:
    """Print a nested record as lines of `path  value`, or as JSON."""
    if format_ == "json":
        click.echo(json_text(record, indent=1))
    else:
        click.echo(_joined(fitted(list(_flat(record)), (), terminal_width())))


def _flat(record: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for name, value in record.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}{name}.")
        elif value not in ("", None, {}, []):
            yield f"{path}{name}", _cell(value)


def _text(table: "pl.DataFrame", dispensable: Sequence[str]) -> str:
    width = terminal_width()
    if width is not None:
        table = table.select(name for name in table.columns if any(map(_cell, table[name])))
        columns = [[name.replace("_", " "), *map(_cell, table[name])] for name in table.columns]
        ranks = [dispensable.index(name) + 1 if name in dispensable else 0 for name in table.columns]
        table = table.select(table.columns[number] for number in dispensed(columns, ranks, width))
    titles = table.columns if width is None else [name.replace("_", " ") for name in table.columns]
    rows = [titles, *([_cell(value) for value in row] for row in table.iter_rows())]
    return _joined(fitted(rows, [number for number, dtype in enumerate(table.dtypes) if dtype.is_numeric()], width))


def _joined(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(line for lines in rows for line in lines)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
