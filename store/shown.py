"""Make text safe to show on a terminal or in a document, whatever control characters it contains.

In: text with names that may come from an untrusted store, file or model folder.  Out: the same text without escape sequences, control
characters, invisible characters and marks that change the direction of writing ("control characters" for short below); a name stays on
one line.
"""

import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    import polars as pl

# Colour codes and cursor movements are removed whole, so that a library's coloured log stays readable; other control characters become `?`.
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_INSIDE_INTERVAL = re.compile(r", (?=[^\[\]()]*[\])])")
_LETTER = re.compile("[^\\W\\d_]")
GAP = "  "  # between columns
Painter = Callable[[str, str], str]  # takes a whole cell and one line of it, and returns that line, coloured or as it is
FEWEST = 4  # characters of the narrowest column
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


def terminal_width() -> int | None:
    """Return the characters of a line on the terminal; None where there is no terminal and no COLUMNS."""
    return shutil.get_terminal_size((0, 0)).columns or None if sys.stdout.isatty() or os.environ.get("COLUMNS") else None


def terminal_lines(rows: Sequence[Sequence[str]], dispensable: Sequence[int] = ()) -> list[str]:
    """Return the lines of a table that fits the terminal; in a pipe or a file every row is one line.

    dispensable : of each column; where words would have to be broken, the highest is left out first, 0 never.
    """
    width = terminal_width()
    if width is not None and dispensable:
        words = [[column[0], *(max(cell.split(), key=len, default="") for cell in column[1:])] for column in zip(*rows, strict=True)]
        left = dispensed(words, dispensable, width)
        rows = [[row[number] for number in left] for row in rows]
    return [line for lines_of_row in fitted(rows, (), width) for line in lines_of_row]


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Return one printable line per row of text cells, columns aligned to the left, those whose numbers are in `right` to the right."""
    return [line for lines_of_row in fitted(rows, right) for line in lines_of_row]


def fitted(
    rows: Sequence[Sequence[str]],
    right: Collection[int] = (),
    width: int | None = None,
    painted: "Mapping[int, Painter] | None" = None,
    breaking: Collection[int] = (),
) -> list[list[str]]:
    """Return the printable lines of each row, aligned as in `aligned`.

    width   : most characters of a line; None gives every row one line, however long. What does not fit into its column goes on below:
              titles first, then texts at their spaces, and names anywhere where all else is not enough; a figure stays whole.
    painted : by number of a column, what colours a piece of one of its cells; the colour is not counted as characters.
    breaking : numbers of the columns whose cells go on below before those of any other column do.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if width is not None:
        widths = narrowed(rows, widths, width, breaking)
    return [_lines_of(row, widths, right, painted or {}) for row in rows]


def dispensed(columns: Sequence[Sequence[str]], dispensable: Sequence[int], width: int) -> list[int]:
    """Return the numbers of the columns that are left when a table is made to fit.

    columns     : cells of each column, its title first; titles may go on below, cells may not.
    dispensable : of each column; the highest is left out first, 0 never.
    """
    left = list(range(len(columns)))
    while sum(narrowest(*_titled(columns[number])) for number in left) + len(GAP) * (len(left) - 1) > width:
        number = max(left, key=lambda each: dispensable[each])
        if not dispensable[number]:
            break
        left.remove(number)
    return left


def _titled(column: Sequence[str]) -> tuple[str, Sequence[str]]:
    return column[0], column[1:]


def narrowest(title: str, cells: Sequence[str]) -> int:
    """Return the width of a column that holds its cells whole, and its title on as many lines as it has words."""
    return max(_longest_word(title), *map(len, cells), 0)


def narrowest_broken(title: str, cells: Sequence[str]) -> int:
    """Return the width of a column that holds every word of its cells and its title whole."""
    return max(map(_longest_word, (title, *cells)))


def _lines_of(row: Sequence[str], widths: Sequence[int], right: Collection[int], painted: "Mapping[int, Painter]") -> list[str]:
    cells = zip_longest(*(pieces(cell, width) for cell, width in zip(row, widths, strict=True)), fillvalue="")

    def aligned_cell(number: int, piece: str) -> str:
        shown = piece.rjust(widths[number]) if number in right else piece.ljust(widths[number])
        return shown.replace(piece, painted[number](row[number], piece), 1) if piece and number in painted else shown

    return [GAP.join(aligned_cell(number, piece) for number, piece in enumerate(line)).rstrip() for line in cells]


def narrowed(rows: Sequence[Sequence[str]], widths: list[int], width: int, breaking: Collection[int]) -> list[int]:
    """Return the widths of columns that fit, the widest made narrower first, as far as each of four floors allows."""
    columns = list(zip(*rows, strict=True))
    floors = (
        [narrowest(title, cells) for title, *cells in columns],
        [(narrowest_broken if number in breaking else narrowest)(title, cells) for number, (title, *cells) in enumerate(columns)],
        [narrowest_broken(title, cells) for title, *cells in columns],
        [max(FEWEST, *(_longest_word(cell, figures=True) for cell in column)) for column in columns],
    )
    for floor in floors:
        while sum(widths) + len(GAP) * (len(widths) - 1) > width:
            spare = [(most, number) for number, most in enumerate(widths) if most > floor[number]]
            if not spare:
                break
            widths[max(spare)[1]] -= 1
    return widths


def _longest_word(text: str, *, figures: bool = False) -> int:
    """Return the length of the longest piece between spaces, of `figures` only the longest without letters: those are never broken."""
    return max((len(word) for word in _unbroken(text).split(" ") if not (figures and _LETTER.search(word))), default=0)


def pieces(cell: str, width: int) -> list[str]:
    """Return a cell in lines of at most so many characters."""
    if len(cell) <= width:
        return [cell]
    parts = textwrap.wrap(_unbroken(cell), max(width, 1), break_on_hyphens=False)  # 0 where a column holds nothing but spaces
    return [part.replace("\xa0", " ") for part in parts] or [""]


def _unbroken(text: str) -> str:
    """Keep the two ends of an interval, as in [0.12, 0.34], on one line."""
    return _INSIDE_INTERVAL.sub(",\xa0", text)


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
