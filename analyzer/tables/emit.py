"""Print results on stdout: a table for people, Markdown or LaTeX for papers, JSON, CSV or Parquet for programs.

Which records cannot be trusted is also printed on stderr.
"""

import io
import json
import sys
from collections.abc import Sequence

import click

from analyzer.measure.records import Record, frame
from analyzer.tables.markup import MARKUP
from analyzer.tables.terminal import Column, render
from schemas.errors import UsageError
from store.command import colored, echo_colored
from store.shown import Shown, csv_text, message

MAX_WARNED = 5


def emit(records: Sequence[Record], form: str, columns: Sequence[Column], notes: Sequence[str] = ()) -> None:
    """Print records in one of the output formats, those for people with notes below. Raises UsageError for Parquet to a terminal."""
    if form == "table" and colored():
        echo_colored(render(records, columns, notes=notes, colored=True))
    elif form == "table":
        click.echo(render(records, columns, notes=notes))
    elif form in MARKUP:
        click.echo(MARKUP[form](records, columns, notes=notes))
    elif form == "json":
        click.echo("[\n" + ",\n".join(json.dumps(record, allow_nan=False) for record in records) + "\n]")
    elif form == "csv":
        click.echo(csv_text(frame(records)), nl=False)
    elif sys.stdout.isatty():
        raise UsageError("Parquet is binary; send it to a file: analyze .. --format parquet > results.parquet")
    else:
        stdout = sys.stdout.stream if isinstance(sys.stdout, Shown) else sys.stdout
        stdout.buffer.write(_parquet(records))
    warn(records, form)


def _parquet(records: Sequence[Record]) -> bytes:
    buffer = io.BytesIO()
    frame(records).write_parquet(buffer)
    return buffer.getvalue()


def warn(records: Sequence[Record], form: str) -> None:
    """Print on stderr which records are unreliable, each run and reason once; a table has the reasons below itself."""
    count = sum(record.get("unreliable") is not None for record in records)
    if count and form == "table":
        click.echo(f"{count} of {len(records)} rows are unreliable; the reasons are below the table", err=True)
        return
    warnings = list(dict.fromkeys(f"{record['run']}: {record['unreliable']}" for record in records if record.get("unreliable")))
    for line in warnings[:MAX_WARNED]:
        click.echo(message(f"unreliable: {line}"), err=True)
    if len(warnings) > MAX_WARNED:
        click.echo(f"unreliable: and {len(warnings) - MAX_WARNED} more; see the field `unreliable`", err=True)
