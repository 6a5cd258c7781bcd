"""Text that leaves for a terminal or a document: nothing in it steers what shows it.

In: text, in which names may come from a stranger's store, file or model folder.  Out: the same text without escape sequences, control
characters, invisible characters and marks that turn the direction of writing; a name fills one line.
"""

import json
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    import polars as pl

# Colours and movements of the cursor are taken out whole, so that a library's coloured log stays readable; what else steers becomes `?`.
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")  # turn the direction of writing of what follows


def printable(text: str) -> str:
    """Return text for one line: what steers a terminal, line feeds and tabs too, is `?`."""
    return _STEERING.sub("?", text).replace("\n", "?").replace("\t", "?")


def lines(text: str) -> str:
    """Return text of several lines without what steers a terminal; line feeds and tabs stay."""
    return _STEERING.sub("?", _SEQUENCE.sub("", text))


def message(text: str) -> str:
    """Return a message; its further lines are indented, so that no name in it can begin a line and pass for a message of its own."""
    return lines(text).replace("\n", "\n  ")


def json_text(value: Any, indent: int | None = None) -> str:
    """Return JSON in which what steers a terminal is escaped, so that no value changes. Raises ValueError for NaN and infinities."""
    return escaped_json(json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False))


def escaped_json(text: str) -> str:
    """Return JSON of the same value in which what steers a terminal is escaped."""
    return _STEERING.sub(lambda match: json.dumps(match[0])[1:-1], text)


def csv_text(table: "pl.DataFrame") -> str:
    """Return a table as CSV; a text in it fills one line."""
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
    """A standard stream that shows text and obeys nothing in it: the one way by which a command's text, logs and progress leave.

    A carriage return in front stays: a progress bar begins its line anew with it.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write text without what steers a terminal."""
        if not isinstance(text, str):  # click asks so whether a stream takes bytes
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
