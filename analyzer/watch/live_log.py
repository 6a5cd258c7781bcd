"""Read a table of live questions without guessing: the options' logits by letter, and optional columns about each question.

In: a CSV, Parquet or JSON-lines file with columns logit_A, logit_B, ...; optional are id, answer, subject, group, time, logsumexp,
n_options and at_most.  Out: a `LiveLog` in the order of the file. Columns are found by name, so their order does not matter.
"""

import json
import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from analyzer.predictor import Predictor
from analyzer.stats.arrays import BoolArray, FloatArray, IntArray
from schemas.errors import UsageError
from schemas.json_text import parse_json_lines, read_text
from store.importers.table_columns import load_table, numbers, texts

PREFIX = "logit_"
OPTIONAL = ("id", "answer", "subject", "group", "time", "logsumexp", "n_options", "at_most")
UNKNOWN = -1  # index of an answer that is not known yet


class LiveLog(NamedTuple):
    """Live questions, one per row, numbered from `first_row` (1 is the row after the header).

    logits    : (row, option), in the order of the predictor's letters; NaN beyond a question's own options and where a value is missing.
    n_options : (row,); 0 for a row that only adds an answer.  at_most : (row,) upper bound of missing logits; NaN if none is missing.
    answer    : (row,) index of the correct option; -1 where it is not known.
    """

    name: str
    first_row: int
    ids: Sequence[str] | None
    logits: FloatArray
    n_options: IntArray
    at_most: FloatArray
    answer: IntArray
    subject: Sequence[str] | None
    group: Sequence[str] | None
    time: Sequence[str] | None
    logsumexp: FloatArray | None

    def __len__(self) -> int:
        return len(self.n_options)

    @property
    def complete(self) -> BoolArray:
        """Whether a row has a finite logit for every option of its question, (row,)."""
        return np.asarray((self.n_options > 0) & np.isnan(self.at_most))


def read_log(path: Path, predictor: Predictor, *, skip: int = 0, most: int | None = None, answers_alone: bool = False) -> LiveLog:
    """Return the rows of a file after the first `skip`: all of them, or at most `most`.

    answers_alone : whether to accept rows without logits, which add the answer of an earlier question.
    Raises UsageError naming the column or the row, such as options other than the predictor's, a gap, or a value that is no number.
    """
    table = _load(path)
    columns = [f"{PREFIX}{letter}" for letter in predictor.letters]
    logit_columns = [name for name in table.columns if name.startswith(PREFIX)]
    if sorted(logit_columns) != sorted(columns):
        names = ", ".join(logit_columns)[:160] or "without logits"
        raise UsageError(f"{path.name} has columns {names}; the predictor needs {', '.join(columns)}")
    if unknown := [name for name in table.columns if name not in (*OPTIONAL, *columns)]:
        raise UsageError(f"{path.name} has a column {unknown[0][:80]!r}; known beside the logits: {', '.join(OPTIONAL)}")
    if skip > len(table):
        raise UsageError(f"{path.name} has {len(table)} rows, but {skip} were read before; a log only grows")
    _check_order(table.slice(max(skip - 1, 0)), max(skip, 1), path)
    table = table.slice(skip, most)
    logits, first_row = numbers(table, columns), skip + 1
    infinite = np.asarray(np.isinf(logits).any(axis=1))
    _refuse(infinite, first_row, path, "has an infinite logit; leave an option out whose value was not returned")
    at_most = _optional(table, "at_most")
    is_present = ~np.isnan(logits)
    n_options = _n_options(table, is_present, at_most, first_row, path)
    if not answers_alone:
        _refuse(n_options == 0, first_row, path, "has no logits")
    ids, time, group = (_column(table, name, first_row, path) for name in ("id", "time", "group"))
    answer = _answers(table, predictor, n_options, first_row, path)
    _refuse((n_options == 0) & (answer == UNKNOWN), first_row, path, "has neither logits nor an answer")
    parts = predictor.document.parts
    subject = _column(table, "subject", first_row, path) if predictor.subjects or parts else None
    if predictor.subjects and subject is None:
        raise UsageError(f"{path.name} has no column subject; the predictor has a threshold for each of its subjects")
    logsumexp = _optional(table, "logsumexp") if "logsumexp" in table.columns else None
    return LiveLog(path.name, first_row, ids, logits, n_options, at_most, answer, subject, group, time, logsumexp)


def _load(path: Path) -> pl.DataFrame:
    if path.suffix not in (".jsonl", ".ndjson"):
        return load_table(path)
    try:
        rows = list(parse_json_lines(read_text(path)))
    except ValueError as error:
        raise UsageError(f"{path.name}: {error}") from error
    for number, row in rows:
        if not isinstance(row, dict) or any(isinstance(value, list | dict | bool) for value in row.values()):
            raise UsageError(f'{path.name} line {number} is not an object of numbers and texts, such as {{"id": "q1", "logit_A": 1.5}}')
    if not rows:
        raise UsageError(f"{path.name} has no rows")
    names = dict.fromkeys(name for _, row in rows for name in row)
    return pl.DataFrame({name: [_as_text(row.get(name)) for _, row in rows] for name in names}, schema=dict.fromkeys(names, pl.String))


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _n_options(table: pl.DataFrame, is_present: BoolArray, at_most: FloatArray, first_row: int, path: Path) -> IntArray:
    """Return each question's number of options: as given, else the full width if values may be missing, else up to its last value."""
    width = is_present.shape[1]
    up_to_last = np.where(is_present.any(axis=1), width - is_present[:, ::-1].argmax(axis=1), 0)
    stated = _optional(table, "n_options")
    is_unstated, is_partial = np.isnan(stated), ~np.isnan(at_most)
    wrong = ~is_unstated & ((stated != np.floor(stated)) | (stated < 2) | (stated > width) | (stated < up_to_last))
    _refuse(wrong, first_row, path, f"says a number of options that is not 2 to {width}, or below its last logit")
    counts = np.where(is_unstated, np.where(is_partial, width, up_to_last), np.nan_to_num(stated)).astype(np.int64)
    counts[up_to_last == 0] = 0
    gap = (is_present.sum(axis=1) < counts) & ~is_partial
    _refuse(gap, first_row, path, "lacks the logit of an option before its last; at_most bounds values that an API did not return")
    _refuse(counts == 1, first_row, path, "has one option; a question has 2 or more")
    return counts


def _answers(table: pl.DataFrame, predictor: Predictor, n_options: IntArray, first_row: int, path: Path) -> IntArray:
    if "answer" not in table.columns:
        return np.full(len(n_options), UNKNOWN)
    words = texts(table, "answer", optional=True).to_list()
    index_of = {"": UNKNOWN} | {letter: index for index, letter in enumerate(predictor.letters)}
    for row, word in enumerate(words):
        if word not in index_of:
            raise UsageError(f"{path.name} row {first_row + row} has answer {word[:40]!r}; expected one of {', '.join(predictor.letters)}")
    answer = np.array([index_of[word] for word in words])
    _refuse((n_options > 0) & (answer >= n_options), first_row, path, "has an answer that is none of its options")
    return answer


def _column(table: pl.DataFrame, name: str, first_row: int, path: Path) -> list[str] | None:
    """Return a column as text; None if the table lacks it. Raises UsageError for an empty value, with its row in the whole log."""
    if name not in table.columns:
        return None
    values = texts(table, name, optional=True)
    _refuse((values == "").to_numpy(), first_row, path, f"has nothing in column {name}; fill it in every row, or leave the column out")
    return values.to_list()


def _check_order(table: pl.DataFrame, first_row: int, path: Path) -> None:
    """Raise UsageError where a row is earlier than the row before it, or where times cannot be compared."""
    values = _column(table, "time", first_row, path)
    if values is None:
        return
    times: list[Any] = table["time"].to_list() if table["time"].dtype.is_temporal() else _moments(values, first_row, path)
    try:
        late = next((row for row in range(1, len(times)) if times[row] < times[row - 1]), 0)
    except TypeError:
        raise UsageError(
            f"{path.name} has times with and without a time zone; give one to all of them, such as 2026-01-31T12:00Z"
        ) from None
    if late:
        raise UsageError(f"{path.name} row {first_row + late} is earlier than the row before it; a log is in the order of time")


def _moments(values: Sequence[str], first_row: int, path: Path) -> list[Any]:
    """Return times that can be compared: numbers if the first is a number, else dates and times of ISO 8601."""
    kind = float if _is_number(values[0]) else datetime.fromisoformat
    moments: list[Any] = []
    for row, value in enumerate(values):
        try:
            moments.append(kind(value))
        except ValueError:
            expected = "a number as in the first" if kind is float else "one such as 2026-01-31T12:00Z, or a number of seconds"
            raise UsageError(f"{path.name} row {first_row + row} has time {value[:40]!r}; expected {expected}") from None
    return moments


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _optional(table: pl.DataFrame, name: str) -> FloatArray:
    return numbers(table, [name])[:, 0] if name in table.columns else np.full(len(table), np.nan)


def _refuse(wrong: BoolArray, first_row: int, path: Path, why: str) -> None:
    if wrong.any():
        raise UsageError(f"{path.name} row {first_row + int(wrong.argmax())} {why}")
