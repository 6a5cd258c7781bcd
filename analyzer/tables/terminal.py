"""Records as a table for a terminal: what is the same in every row stands above it, repeated names are left blank, reasons stand below."""

import shutil
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from analyzer.measure.records import Record
from analyzer.tables.cautions import cautions
from analyzer.tables.numbers import digits_that_show, fixed, fixed_interval
from analyzer.tables.verdict_colors import in_color
from store.shown import GAP, dispensed, fitted, narrowest_broken, printable

WIDTH = 120
KEYS = ("model", "task", "prompt", "method", "level", "scorer", "alpha", "group", "varied")
SHARED = ("protocol", "split", "empty", "n_items", "n_calibration", "snapshot")
WORDS = {"n_items": "items", "n_calibration": "calibration items"}


@dataclass(frozen=True)
class Column:
    """One column: `text` makes a cell. Where the table is too wide, columns are left out, those of the highest `dispensable` first.

    judges : its cells are verdicts, which have colours on a terminal.
    below  : where it is left out, each of its cells stands on a line of its own below its row.
    """

    title: str
    text: Callable[[Record], str]
    dispensable: int = 0
    judges: bool = False
    below: bool = False


class Sheet(NamedTuple):
    """What a table shows in any form: what all rows share, columns (the first `n_keys` name the row), reasons."""

    common: Mapping[str, str]
    columns: list[Column]
    n_keys: int
    notes: list[str]

    @property
    def caption(self) -> str:
        """What all rows share in one line, such as `task mmlu · alpha 0.1 · items 2,000`."""
        return " · ".join(f"{WORDS.get(name, name)} {value}" for name, value in self.common.items())


def sheet(records: Sequence[Record], columns: Sequence[Column], notes: Sequence[str] = ()) -> Sheet:
    """Return the sheet of records: names that differ between rows become columns, the others go into the caption.

    Rows of different runs that all these names do not tell apart have the end of their run's name as well.
    notes : sentences that come first below the table.
    """
    fields = [key for key in (*KEYS, *SHARED) if all(key in record for record in records)]
    fields = [key for key in fields if any(record[key] is not None for record in records)]
    keys = [key for key in KEYS if key in fields and len({record[key] for record in records}) > 1]
    reasons = list(dict.fromkeys(record["unreliable"] for record in records if record.get("unreliable")))
    leading = [Column(key, _plain_field(key)) for key in keys]
    if _has_twins(records):
        leading.append(Column("run", _digests))
    flag = [Column("!", lambda record: f"!{reasons.index(record['unreliable']) + 1}" if record["unreliable"] else "")] if reasons else []
    common = {key: _common(records, key) for key in fields if key not in keys}
    marked = [f"!{number + 1} unreliable: {reason}" for number, reason in enumerate(reasons)]
    below = [*marked, *notes, *cautions(records, [column.title for column in columns])]
    return Sheet(common, [*leading, *columns, *flag], len(leading), below)


def filled(shown: Sheet, records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    """Return titles and rows; a column without any text is left out."""
    cells = [(column.title, [column.text(record) for record in records]) for column in shown.columns]
    with_text = [(title, texts) for title, texts in cells if any(texts)]
    return [title for title, _ in with_text], [list(row) for row in zip(*(texts for _, texts in with_text), strict=True)]


def render(
    records: Sequence[Record], columns: Sequence[Column], width: int | None = None, notes: Sequence[str] = (), *, colored: bool = False
) -> str:
    """Return the table for a terminal: caption, header, rows, the reasons of rows marked `!`, and notes."""
    shown = sheet(records, columns, notes)
    most = width or shutil.get_terminal_size((WIDTH, 0)).columns
    same = _same_everywhere(shown.columns, records, most)
    lines = _fit([column for column in shown.columns if column.title not in same], records, most, shown.n_keys, colored=colored)
    caption = " · ".join([shown.caption, *(f"{title} {text}" for title, text in same.items())])
    return "\n".join([printable(caption), "", *lines, *([""] if shown.notes else []), *map(printable, shown.notes)])


def estimate(name: str, digits: int = 3, *, sign: bool = False) -> Callable[[Record], str]:
    """Return the cell maker of an estimate with its interval, such as `2.31 [2.25, 2.37]`."""

    def text(record: Record) -> str:
        value, low, high = (record.get(f"{name}{end}") for end in ("", "_low", "_high"))
        if value is None:
            return ""
        if low is None:
            return fixed(value, digits, sign=sign)
        if high is None:
            return f"{fixed(value, digits, sign=sign)} [{fixed(low, digits_that_show(low, digits), sign=sign)}, ∞)"
        shows = digits_that_show(value, digits) if low > 0 or high < 0 else digits
        return f"{fixed(value, shows, sign=sign)} {fixed_interval(low, high, digits, sign=sign)}"

    return text


def interval(name: str, digits: int = 3) -> Callable[[Record], str]:
    """Return the cell maker of an estimate's interval alone, such as `[2.25, 2.37]`."""

    def text(record: Record) -> str:
        low, high = record.get(f"{name}_low"), record.get(f"{name}_high")
        return "" if low is None or high is None else fixed_interval(low, high, digits)

    return text


def number(name: str, digits: int = 3, sd: str = "") -> Callable[[Record], str]:
    """Return the cell maker of a number, with ± its sd over splits where `sd` names one."""

    def text(record: Record) -> str:
        value, spread = record.get(name), record.get(sd) if sd else None
        if value is None:
            return ""
        return fixed(value, digits) + (f" ±{fixed(spread, digits)}" if spread is not None else "")

    return text


def stated(name: str, digits: int = 3) -> Callable[[Record], str]:
    """Return the cell maker of a number that the user gave, with as many decimals as it takes to show it."""

    def text(record: Record) -> str:
        value = record.get(name)
        return "" if value is None else fixed(value, digits_that_show(value, digits))

    return text


def p_value(name: str) -> Callable[[Record], str]:
    """Return the cell maker of a p-value, such as `0.032`, or `<0.001` where more digits would mean nothing."""

    def text(record: Record) -> str:
        value = record.get(name)
        return "" if value is None else f"{value:.3f}" if value >= 0.001 else "<0.001"

    return text


def words(name: str) -> Callable[[Record], str]:
    """Return the cell maker of a text, or of yes and no."""

    def text(record: Record) -> str:
        value = record.get(name)
        return ("no", "yes")[value] if isinstance(value, bool) else value or ""

    return text


def span(name: str, *, sign: bool = False) -> Callable[[Record], str]:
    """Return the cell maker of a range over variants, such as `1.62 to 2.31`."""

    def text(record: Record) -> str:
        least, most = record.get(f"{name}_least"), record.get(f"{name}_most")
        return "" if least is None or most is None else f"{fixed(least, 2, sign=sign)} to {fixed(most, 2, sign=sign)}"

    return text


def _fit(columns: Sequence[Column], records: Sequence[Record], width: int, n_keys: int, *, colored: bool) -> list[str]:
    """Return header and rows in lines of at most `width` characters.

    Verdicts go on below where they are too long. Where that is not enough, dispensable columns are left out or go below their rows, and
    then the first names stand above the rows that share them.
    """
    cells = {id(column): [column.text(record) for record in records] for column in columns}
    shown = _fitting(columns, cells, width)
    n_keys = sum(any(cells[id(column)]) for column in shown[:n_keys])
    shown = [column for column in shown if any(cells[id(column)])]
    n_above = 0
    while n_above < n_keys and _broken_width(shown[n_above:], cells) + len(GAP) * (n_above > 0) > width:
        n_above += 1
    above, beside = shown[:n_above], shown[n_above:]
    rows = _blank_repeats([[cells[id(column)][index] for column in beside] for index in range(len(records))], n_keys - n_above)
    right = [number for number in range(n_keys - n_above, len(beside)) if not any("[" in row[number] for row in rows)]
    painted = {number: in_color for number, column in enumerate(beside) if colored and column.judges}
    judging = [number for number, column in enumerate(beside) if column.judges]
    inside = width - len(GAP) * bool(above)
    header, *table = fitted([[column.title for column in beside], *rows], right, inside, painted, judging)
    moved = [(column.title, cells[id(column)]) for column in columns if column.below and column not in shown]
    texts = [[f"{title}: {said[index]}" for title, said in moved if said[index]] for index in range(len(records))]
    table = [header, *([*lines, *_below(text, inside)] for lines, text in zip(table, texts, strict=True))]
    if not above:
        return [line for lines in table for line in lines]
    names = [" · ".join(filter(None, (cells[id(column)][index] for column in above))) for index in range(len(records))]
    return list(_under_names(names, table, width))


def _below(texts: Sequence[str], width: int) -> Iterator[str]:
    """Yield the lines of what stands below a row, indented; figures stay whole."""
    for text in texts:
        _, lines = fitted([[""], [text]], width=width - 2 * len(GAP))
        yield from (2 * GAP + line for line in lines)


def _fitting(columns: Sequence[Column], cells: dict[int, list[str]], width: int) -> list[Column]:
    """Return the columns that are left when those that are dispensable are left out until the others fit."""
    titled = [[column.title, *(_longest_words(cells[id(column)]) if column.judges else cells[id(column)])] for column in columns]
    return [columns[number] for number in dispensed(titled, [column.dispensable for column in columns], width)]


def _same_everywhere(columns: Sequence[Column], records: Sequence[Record], width: int) -> dict[str, str]:
    """Return title and cell of the dispensable columns that say the same in every row, for the caption, if the table is too wide."""
    cells = {id(column): [column.text(record) for record in records] for column in columns}
    if len(_fitting(columns, cells, width)) == len(columns):
        return {}
    return {column.title: texts[0] for column in columns if column.dispensable and len({*(texts := cells[id(column)])}) == 1 and texts[0]}


def _longest_words(texts: Sequence[str]) -> list[str]:
    return [max(text.split(), key=len, default="") for text in texts]


def _under_names(names: Sequence[str], table: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Yield the lines of a table, its header first, indented under the names of its rows, each name once."""
    header, *rows = table
    yield from (GAP + line for line in header)
    for name, group in groupby(zip(names, rows, strict=True), key=itemgetter(0)):
        yield from textwrap.wrap(printable(name), width, break_on_hyphens=False)
        yield from (GAP + line for _, lines in group for line in lines)


def _broken_width(columns: Sequence[Column], cells: dict[int, list[str]]) -> int:
    return sum(len(GAP) + narrowest_broken(column.title, cells[id(column)]) for column in columns) - len(GAP)


def _blank_repeats(rows: list[list[str]], n_keys: int) -> list[list[str]]:
    """Leave out a leading name that the row above has too, as long as everything left of it repeats as well."""
    shown = []
    for above, row in zip([[], *rows], rows, strict=False):
        same = 0
        while above and same < n_keys - 1 and above[same] == row[same]:
            same += 1
        shown.append([""] * same + row[same:])
    return shown


def _common(records: Sequence[Record], key: str) -> str:
    values = [record[key] for record in records if record[key] is not None]
    return " to ".join(dict.fromkeys([_plain(min(values)), _plain(max(values))]))


def _has_twins(records: Sequence[Record]) -> bool:
    """Whether different runs have the same names, such as two checkpoints at one level, or two seeds."""
    runs: dict[tuple[object, ...], set[str]] = {}
    for record in records:
        if record.get("run"):
            runs.setdefault(tuple(record.get(key) for key in KEYS), set()).add(record["run"])
    return any(len(names) > 1 for names in runs.values())


def _digests(record: Record) -> str:
    """Return the ends of the names of a record's runs, such as `#1a2b3c4d`, which `store show` takes with what stands before."""
    return "+".join(f"#{name.rpartition('.')[2]}" for name in (record.get("run") or "").split("+") if name)


def _plain_field(key: str) -> Callable[[Record], str]:
    return lambda record: _plain(record[key])


def _plain(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
