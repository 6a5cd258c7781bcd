"""`analyze compare --reference FILE`: figures stated in articles beside those measured here. Whether they agree is decided by intervals.

The file is CSV: model, method, level, task, metric, value, note. A figure is the mean over prompts and scorers at alpha 0.1; the task
`average` is the mean over the benchmark's five tasks. A model's name may be that of its repository: llama2-7b is also
Llama-2-7b-hf. A stated figure has no interval, so it is given the one that our data would have with as many items per task as the
article used, noise of the split included.
"""

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from analyzer.measure.cell import Cell
from analyzer.measure.question import Question
from analyzer.measure.records import Record, average_groups, on_whole_set, unreliable
from analyzer.runs.loading import Runs
from analyzer.stats.combined import average
from analyzer.stats.estimate import student
from analyzer.studies.sets import measure_runs
from schemas.benchmark import BENCHMARK
from schemas.errors import UsageError
from schemas.known_names import known
from schemas.levels import NO_LEVEL, Level, parse_level
from schemas.run import DENSE

COLUMNS = ("model", "method", "level", "task", "metric", "value")
METRICS = {"accuracy": 5e-5, "coverage": 5e-5, "set_size": 5e-3, "uacc": 5e-3}  # half a unit of the last digit that is stated
EVERY_TASK = "average"
ITEMS_STATED = 2_000
AGREES, DIFFERS, NO_RUN, OTHER_TASKS, NO_INTERVAL = "agrees", "differs", "no run", "tasks missing", "no interval"


@dataclass(frozen=True)
class Stated:
    """One figure of an article."""

    model: str
    method: str
    level: str
    task: str
    metric: str
    value: float
    note: str


class MeasuredFigure(NamedTuple):
    """A figure measured here: its error over our items, the error with as many items as the article used, and why it cannot be trusted."""

    value: float
    error: float
    stated_error: float
    tasks: tuple[str, ...]
    reason: str | None


def read_published(path: Path) -> list[Stated]:
    """Return the figures of a CSV file. Raises UsageError that names the invalid line."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read the published figures {path}: {error}") from error
    if not rows:
        raise UsageError(f"published figures {path}: the file is empty; expected CSV with the columns {', '.join(COLUMNS)}")
    return [_stated(row, f"published figures {path}, line {number}") for number, row in enumerate(rows, start=2)]


def beside_published(runs: Runs, question: Question, stated: Iterable[Stated], items_stated: int = ITEMS_STATED) -> list[Record]:
    """Return one record per stated figure: its value, the measured one with its interval, and whether they agree; `no run` without one.

    items_stated : number of items per task in the article.
    """
    groups = average_groups(measure_runs(runs, question))
    return [_record(figure, _measured(figure, groups, items_stated), runs.reader.snapshot) for figure in stated]


def _stated(row: Mapping[str, str | None], where: str) -> Stated:
    if missing := [name for name in COLUMNS if row.get(name) is None]:
        raise UsageError(f"{where}: no column {missing[0]!r}; expected {', '.join(COLUMNS)}")
    text = {name: value or "" for name, value in row.items() if isinstance(name, str)}
    if text["metric"] not in METRICS:
        raise UsageError(f"{where}: unknown metric {text['metric']!r}; {known(text['metric'], METRICS)}")
    try:
        value = float(text["value"])
    except ValueError:
        raise UsageError(f"{where}: value {text['value']!r} is not a number") from None
    return Stated(text["model"], text["method"], text["level"], text["task"], text["metric"], value, text.get("note", ""))


def _measured(figure: Stated, groups: Sequence[Sequence[Cell]], items_stated: int) -> MeasuredFigure | None:
    """The measured figure; tasks have different items, so the squared errors of their mean add up."""
    cells_of_tasks = [cells for cells in groups if _is_meant(figure, cells[0])]
    if not cells_of_tasks:
        return None
    means = [average([on_whole_set(cell.estimates[figure.metric], cell) for cell in cells]) for cells in cells_of_tasks]
    shrink = [math.sqrt(max(mean.influence.size, 1) / items_stated) for mean in means]
    splits = [_split_sd(cells, figure.metric) for cells in cells_of_tasks]
    error = math.hypot(*(mean.error for mean in means)) / len(means)
    stated = math.hypot(*(factor * math.hypot(mean.error, sd) for mean, factor, sd in zip(means, shrink, splits, strict=True))) / len(means)
    reason = unreliable([cell for cells in cells_of_tasks for cell in cells])
    tasks = tuple(cells[0].view.row["task"] for cells in cells_of_tasks)
    return MeasuredFigure(sum(mean.value for mean in means) / len(means), error, stated, tasks, reason)


def _split_sd(cells: Sequence[Cell], metric: str) -> float:
    """The sd over splits: an article has one split for all scorers and prompts, so it does not average out."""
    spread = [float(cell.facts.get(f"{metric}_sd", 0.0)) for cell in cells]
    return max((sd for sd in spread if math.isfinite(sd)), default=0.0)


def _is_meant(figure: Stated, cell: Cell) -> bool:
    row = cell.view.row
    dense = figure.method == DENSE or figure.level == "0"
    method = row["method"] == (DENSE if dense else figure.method)
    level = dense or same_level(figure.level, row["level"])
    return plain_name(row["model"]) == plain_name(figure.model) and method and level and figure.task in (EVERY_TASK, row["task"])


def plain_name(model: str) -> str:
    """Return a model's name without owner, case, separators and the suffix of converted weights."""
    return re.sub(r"[^a-z0-9.]", "", model.rsplit("/", 1)[-1].lower().removesuffix("-hf"))


def same_level(stated: str, measured: str) -> bool:
    """Return whether a published level means a run's level; one without a group size matches any group size."""
    try:
        stated_level, measured_level = parse_level(stated), parse_level(measured)
    except UsageError:
        return stated == measured
    return stated_level == measured_level or (
        stated_level.kind == "quantization" and stated_level.group_size is None and _bits(stated_level) == _bits(measured_level)
    )


def _bits(level: Level) -> tuple[str, int, int]:
    return level.kind, level.weight_bits, level.activation_bits


def _record(figure: Stated, measured: MeasuredFigure | None, snapshot: str) -> Record:
    record: Record = {"model": figure.model, "method": figure.method, "level": figure.level or NO_LEVEL, "task": figure.task}
    record |= {"metric": figure.metric, "stated": figure.value, "note": figure.note or None}
    if measured is None or not math.isfinite(measured.value):
        empty = dict.fromkeys(("own", "own_low", "own_high", "admitted_low", "admitted_high", "tasks"))
        return record | empty | {"agreement": NO_RUN, "unreliable": measured.reason if measured else None, "snapshot": snapshot}
    t = student(ITEMS_STATED - 1)
    half = t * math.hypot(measured.error, measured.stated_error) + METRICS[figure.metric]
    if not math.isfinite(half):  # a threshold at an atom: how far its set size is known cannot be told
        ends = dict.fromkeys(("own_low", "own_high", "admitted_low", "admitted_high"))
        judged = {"tasks": "+".join(measured.tasks), "agreement": NO_INTERVAL, "unreliable": measured.reason, "snapshot": snapshot}
        return record | {"own": measured.value} | ends | judged
    most = 1.0 if figure.metric in ("accuracy", "coverage") else math.inf
    agreement = AGREES if abs(measured.value - figure.value) <= half else DIFFERS
    if figure.task == EVERY_TASK and not set(measured.tasks) >= set(BENCHMARK):
        agreement = OTHER_TASKS
    return record | {
        "own": measured.value,
        "own_low": max(measured.value - t * measured.error, 0.0),
        "own_high": min(measured.value + t * measured.error, most),
        "admitted_low": max(measured.value - half, 0.0),
        "admitted_high": min(measured.value + half, most),
        "tasks": "+".join(measured.tasks),
        "agreement": agreement,
        "unreliable": measured.reason,
        "snapshot": snapshot,
    }
