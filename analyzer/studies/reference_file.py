"""The file of `analyze sets --reference`: figures that were stated for runs, each with the digits in which it was stated.

It is CSV. Columns that say what a row is about: model and task, and optionally method (dense where it is missing), level, prompt, scorer,
alpha and group. Columns with figures: names of results such as accuracy, coverage and set_size, or `<name>_pct` in per cent; or one figure
a row, in the columns metric and value. A table that `analyze sets --format csv` printed is such a file.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

from analyzer.measure.cell import ESTIMATED, MORE
from analyzer.scorers import SCORERS
from schemas.errors import UsageError
from schemas.known_names import known
from schemas.numbers import exact_number

NAMES = ("model", "method", "level", "task", "prompt", "scorer", "alpha", "group")
OTHER_NAMES = {"e_rate": "idk_rate", "f_rate": "none_of_above_rate"}  # in the published benchmark's own table
PER_CENT = "_pct"


class StatedFigure(NamedTuple):
    """A share or a number of options, and half a unit of the last digit with which its column is stated."""

    value: float
    half_unit: float


@dataclass(frozen=True)
class StatedRow:
    """One line of the file: the names that it has, and its figures by name."""

    line: int
    names: Mapping[str, str]
    figures: Mapping[str, StatedFigure]


@dataclass(frozen=True)
class Reference:
    """A file of stated figures. `unread` are its columns that are neither names nor figures, such as the ends of intervals."""

    path: str
    rows: Sequence[StatedRow]
    unread: Sequence[str]

    @property
    def averaged(self) -> bool:
        """Whether its figures are means over prompts and scorers: it names neither."""
        return not any({"prompt", "scorer"} & row.names.keys() for row in self.rows)

    def completed(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return options of `ask`, with the alphas and scorers of the file where none are given."""
        alphas = dict.fromkeys(row.names["alpha"] for row in self.rows if "alpha" in row.names)
        scorers = dict.fromkeys(name for row in self.rows for name in row.names.get("scorer", "").split("+") if name in SCORERS)
        return {**options, "alphas": options.get("alphas") or [*alphas], "scorers": options.get("scorers") or [*scorers]}


def read_reference(path: Path) -> Reference:
    """Return the stated figures of a CSV file. Raises UsageError that names the line of what cannot be read."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            columns = list(reader.fieldnames or ())
            table = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read the reference {path}: {error}") from error
    if missing := [name for name in ("model", "task") if name not in columns]:
        raise UsageError(f"reference {path} has no column {missing[0]!r}; expected model, task and figures such as set_size")
    if longer := [line for line, row in table if None in row]:
        raise UsageError(f"reference {path}, line {longer[0]} has more values than there are columns")
    table = [(line, {name: text.strip() for name, text in row.items()}) for line, row in table]
    texts = [(line, row, _figure_texts(row, f"reference {path}, line {line}")) for line, row in table]
    if not texts:
        raise UsageError(f"reference {path} has no rows")
    decimals = _decimals(figures for _, _, figures in texts)
    rows = [
        StatedRow(
            line,
            _names(row, f"reference {path}, line {line}"),
            {_result(column): _stated(column, figure, decimals[column]) for column, figure in figures.items()},
        )
        for line, row, figures in texts
    ]
    one_a_row = {"metric", "value"} if {"metric", "value"} <= set(columns) else set()
    return Reference(str(path), rows, [name for name in columns if not (name in {*NAMES, *one_a_row} or _result(name))])


def _result(column: str) -> str:
    """The name that our records have for a column of figures; "" if it is none."""
    name = column.removesuffix(PER_CENT)
    name = OTHER_NAMES.get(name, name)
    return name if name in (*ESTIMATED, *MORE) else ""


def _figure_texts(row: Mapping[str, str], where: str) -> dict[str, Decimal]:
    """Return a row's figures as they are written, by column, or by metric where a row has one figure."""
    written = {name: text for name, text in row.items() if text and _result(name)}
    if row.get("metric") and "value" in row:
        if not _result(row["metric"]):
            raise UsageError(f"{where}: unknown metric {row['metric'][:80]!r}; {known(row['metric'], (*ESTIMATED, *MORE))}")
        written[row["metric"]] = row["value"]
    if not written:
        raise UsageError(f"{where} states no figure; expected columns such as accuracy and set_size, or metric and value")
    return {name: _decimal(text, f"{where}: {name}") for name, text in written.items()}


def _decimal(text: str, what: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise UsageError(f"{what} {text[:80]!r} is not a number") from None
    if not (number.is_finite() and abs(number.adjusted()) < 300):
        raise UsageError(f"{what} {text[:80]!r} is not a finite number")
    return number


def _decimals(rows: Iterable[Mapping[str, Decimal]]) -> dict[str, int]:
    """How many decimals each column states: the most of its rows, since a table may write 0.5 where it means 0.5000."""
    decimals: dict[str, int] = {}
    for row in rows:
        for column, number in row.items():
            exponent = number.as_tuple().exponent
            assert isinstance(exponent, int)
            decimals[column] = max(decimals.get(column, 0), -exponent)
    return decimals


def _stated(column: str, number: Decimal, decimals: int) -> StatedFigure:
    scale = 0.01 if column.endswith(PER_CENT) else 1.0
    return StatedFigure(float(number) * scale, 0.5 * 10.0**-decimals * scale)


def _names(row: Mapping[str, str], where: str) -> dict[str, str]:
    """Return the names that a row has; alpha as the number that records have."""
    names = {name: row[name] for name in NAMES if row.get(name)}
    if missing := [name for name in ("model", "task") if name not in names]:
        raise UsageError(f"{where} has no {missing[0]}")
    if "alpha" in names:
        try:
            alpha = exact_number(names["alpha"])
        except ValueError:
            raise UsageError(f"{where}: alpha {names['alpha'][:80]!r} is not a number") from None
        names["alpha"] = repr(float(alpha))
    return names
