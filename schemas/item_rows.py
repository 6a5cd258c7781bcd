"""The rows of an item file that is text, with the line on which each begins: a JSON array, JSON lines, or CSV.

In: the text of a file.  Out: one `Row` for each element, or line, that holds something; a row that cannot be read has a problem instead of
a value, and the rows after it are read where that is possible.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from schemas.json_text import parse_json

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


class Row(NamedTuple):
    """One row of the file: its value, or the problem that prevented reading it. line : from 1; of a Parquet file, the row's number."""

    line: int
    value: Any
    problem: str = ""


def array_rows(text: str) -> Iterator[Row]:
    """Yield the elements of a JSON array; stop at the first that cannot be read."""
    position, decoder = _after_blanks(text, 0), json.JSONDecoder()
    if text[position : position + 1] != "[":
        yield Row(1, None, "the file is not a JSON array; write items as [ ..., ...], or one per line in a .jsonl file")
        return
    line, counted = 1, 0
    position = _after_blanks(text, position + 1)
    while text[position : position + 1] != "]":
        line, counted = line + text.count("\n", counted, position), position
        try:
            _, end = decoder.raw_decode(text, position)
            value = parse_json(text[position:end])
        except (ValueError, RecursionError) as error:
            yield Row(line, None, f"not JSON: {error or 'nested too deeply'}")
            return
        yield Row(line, value)
        position = _after_blanks(text, end)
        if text[position : position + 1] == ",":
            position = _after_blanks(text, position + 1)
        elif text[position : position + 1] != "]":
            yield Row(line + text.count("\n", counted, position), None, "not JSON: expected , or ] after an item")
            return
    if (position := _after_blanks(text, position + 1)) < len(text):
        yield Row(1 + text.count("\n", 0, position), None, "there is more after the end of the array; only one array is read")


def json_line_rows(text: str) -> Iterator[Row]:
    """Yield the values of all lines that are not blank; lines end at line feeds only."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield Row(number, parse_json(line))
            except ValueError as error:
                yield Row(number, None, f"not JSON: {error}")


def csv_rows(text: str) -> Iterator[Row]:
    """Yield the rows of a CSV table as texts by column name, None for an empty cell; stop where quotes do not match."""
    before = csv.field_size_limit(len(text) + 1)  # a passage may be longer than the default of 131,072 characters
    try:
        yield from _csv_rows(text)
    finally:
        csv.field_size_limit(before)


def _csv_rows(text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield Row(line, None, f"not CSV: {error}")
            return
        if row is None:
            return
        if not header:
            header = row
            if problem := _header_problem(row):
                yield Row(line, None, problem)
                return
        elif len(row) not in (0, len(header)):
            yield Row(line, None, f"{len(row)} values for {len(header)} columns; a value with a comma needs quotes around it")
        elif row:
            yield Row(line, {name: value or None for name, value in zip(header, row, strict=True)})


def _header_problem(header: list[str]) -> str:
    if len(header) == 1 and (separator_name := next((name for separator, name in SEPARATORS.items() if separator in header[0]), "")):
        return f"there are {separator_name} between the columns; save the table with commas there"
    repeated = [name for name in header if header.count(name) > 1]
    return f"two columns are called {repeated[0][:80]!r}" if repeated else ""


def _after_blanks(text: str, position: int) -> int:
    while text[position : position + 1] in (" ", "\t", "\n", "\r"):
        position += 1
    return position


TEXT_FORMS: Mapping[str, Callable[[str], Iterator[Row]]] = {
    ".json": array_rows,
    ".jsonl": json_line_rows,
    ".ndjson": json_line_rows,
    ".csv": csv_rows,
}
