"""Print tables and records as text, JSON or CSV on stdout."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from store.shown import aligned, csv_text, json_text

if TYPE_CHECKING:
    import polars as pl

P = ParamSpec("P")
R = TypeVar("R")


def format_option(command: Callable[P, R]) -> Callable[P, R]:
    """Add `--format table|json|csv` to a click command."""
    formats = click.Choice(["table", "json", "csv"])
    return click.option("--format", "format_", type=formats, default="table", show_default=True, help="How to print.")(command)


def print_table(table: "pl.DataFrame", format_: str) -> None:
    """Print a table in a format; as text it is aligned and never shortened, so that both people and awk can read it."""
    if format_ == "json":
        click.echo(json_text(table.to_dicts(), indent=1))
    elif format_ == "csv":
        click.echo(csv_text(table), nl=False)
    else:
        click.echo(_text(table))


def print_record(record: Mapping[str, Any], format_: str) -> None:
    """Print a nested record as lines of `path  value`, or as JSON."""
    if format_ == "json":
        click.echo(json_text(record, indent=1))
    else:
        click.echo("\n".join(aligned(list(_flat(record)))))


def _flat(record: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for name, value in record.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}{name}.")
        elif value not in ("", None, {}, []):
            yield f"{path}{name}", _cell(value)


def _text(table: "pl.DataFrame") -> str:
    rows = [table.columns, *([_cell(value) for value in row] for row in table.iter_rows())]
    return "\n".join(aligned(rows, [number for number, dtype in enumerate(table.dtypes) if dtype.is_numeric()]))


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
