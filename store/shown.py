"""Make text safe to show on a terminal or in a document, whatever control characters it contains.

In: text with names that may come from an untrusted store, file or model folder.  Out: the same text without escape sequences, control
characters, invisible characters and marks that change the direction of writing ("control characters" for short below); a name stays on
one line.
"""

import json
import os
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    import polars as pl

# Colour codes and cursor movements are removed whole, so that a library's coloured log stays readable; other control characters become `?`.
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")  # change the direction of writing of the text after them


def printable(text: str) -> str:
    """Return text for one line: control characters, line feeds and tabs included, become `?`."""
    return _STEERING.sub("?", text).replace("\n", "?").replace("\t", "?")


def lines(text: str) -> str:
    """Return text of several lines without control characters; line feeds and tabs stay."""
    return _STEERING.sub("?", _SEQUENCE.sub("", text))


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 run, 2 runs."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def message(text: str) -> str:
    """Return a message with its further lines indented, so that no name in it can start a line and look like another message."""
    return lines(text).replace("\n", "\n  ")


def json_text(value: Any, indent: int | None = None) -> str:
    """Return JSON with control characters escaped, so that no value changes. Raises ValueError for NaN and infinities."""
    return escaped_json(json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False))


def escaped_json(text: str) -> str:
    """Return JSON of the same value with control characters escaped."""
    return _STEERING.sub(lambda match: json.dumps(match[0])[1:-1], text)


def csv_text(table: "pl.DataFrame") -> str:
    """Return a table as CSV; every text in it stays on one line."""
    import polars as pl

    texts = [column for column in table if column.dtype == pl.String]
    return table.with_columns(column.map_elements(printable, return_dtype=pl.String) for column in texts).write_csv()


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Return one printable line per row of text cells, columns aligned to the left, those whose numbers are in `right` to the right."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = (
        [cell.rjust(width) if number in right else cell.ljust(width) for number, (cell, width) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    )
    return ["  ".join(cells).rstrip() for cells in padded]


class Shown:
    """A standard stream that removes control characters; all text, logs and progress bars of a command are written through it.

    A leading carriage return is kept, because a progress bar uses it to redraw its line.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write text without its control characters."""
        if not isinstance(text, str):  # click writes bytes to find out whether a stream accepts them
            raise TypeError(f"a text stream takes text, not {type(text).__name__}")
        begun = text[:1] == "\r"
        self.stream.write("\r" * begun + lines(text[begun:]))
        return len(text)

    def writelines(self, texts: Sequence[str]) -> None:
        """Write texts one after the other."""
        for text in texts:
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # click would write text to it, past this filter, where the encoding is ASCII
            raise AttributeError(name)
        return getattr(self.stream, name)


@contextmanager
def silent(descriptor: int) -> Iterator[None]:
    """Discard what libraries write to file descriptor 1 (stdout) or 2 (stderr), past Python's streams and so past the filter above.

    Use it where a library prints names or panics of an untrusted file; what it raises says the same.
    """
    if (sys.__stdout__, sys.__stderr__)[descriptor - 1] is None:  # it was closed from the start, and its number may be another file's
        yield
        return
    before = os.dup(descriptor)
    try:
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), descriptor)
        yield
    finally:
        os.dup2(before, descriptor)
        os.close(before)
