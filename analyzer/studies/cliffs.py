"""`analyze cliffs`: which is the strongest level that is still safe, and do the sets grow gradually or suddenly along the levels?

A sweep is one model, method, kind of level, task, prompt, scorer and alpha; its levels are ordered by how much they compress, with the
dense run at zero. Every level is compared with the same dense run on the same items, so the points of a sweep share their noise.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from analyzer.compare.compare import add_holm, pair_record
from analyzer.compare.paired import Paired, compressed_pairs
from analyzer.compare.two_axis_verdict import Side, Tolerances, limit_side
from analyzer.measure.question import Question
from analyzer.measure.records import Record, on_whole_set
from analyzer.runs.loading import Runs, level_strength
from analyzer.runs.pairs import Partners
from analyzer.stats.arrays import FloatArray
from analyzer.stats.broken_line import BrokenLine, broken_line
from analyzer.stats.combined import covariances
from analyzer.stats.estimate import Estimate
from schemas.errors import RunNotFoundError, UsageError
from schemas.levels import Kind, parse_level

MIN_POINTS = 5
SIGNIFICANT = 0.05  # of a break; smooth sweeps of every shape tried are called broken in at most 2 %, see analyzer/stats/broken_line.py
SEED = 0
NO_GROWTH, GRADUAL, THRESHOLD, UNCLEAR, TOO_FEW = "none", "gradual", "threshold", "inconclusive", "too few levels"


class Growth(NamedTuple):
    """How the sets grow along a sweep: `none`, `gradual`, `threshold`, `inconclusive` or `too few levels`, and why the last.

    line : the fitted break, where one was sought.
    """

    result: str
    line: BrokenLine | None = None
    note: str | None = None


def cliffs(runs: Runs, question: Question, *, tolerances: Tolerances | None = None, partners: Partners | None = None) -> list[Record]:
    """Return one record per level of every sweep; what the whole sweep shows is repeated in each.

    Raises RunNotFoundError if no selected run with a level has a dense run.
    """
    records = cliff_records(compressed_pairs(runs, question, partners), question, tolerances or Tolerances())
    if not records:
        raise RunNotFoundError(f"no sweep: none of {len(runs.rows)} selected runs has both a level and a dense run")
    return records


def cliff_records(cells: Iterable[Paired], question: Question, tolerances: Tolerances) -> list[Record]:
    """Return the same records from cells that are already measured; none if no cell has a level."""
    levels = [cell for cell in cells if sweep_kind(cell.row["level"]) not in (None, "none")]
    return add_holm([record for sweep in sweeps(levels) for record in _records(sweep, question, tolerances)])


def sweeps(cells: Iterable[Paired]) -> list[list[Paired]]:
    """Return cells grouped into sweeps, each sorted by rising strength of the level."""

    def key(cell: Paired) -> tuple[Any, ...]:
        row, kind = cell.row, str(sweep_kind(cell.row["level"]))
        return row["model"], row["task"], row["prompt"], row["method"], kind, row["items_hash"], cell.after.scorer, cell.after.alpha

    ordered = sorted(cells, key=lambda cell: (key(cell), level_strength(cell.row["level"]), cell.row["level"], cell.row["name"]))
    return [list(group) for _, group in groupby(ordered, key=key)]


def sweep_kind(level: str) -> Kind | None:
    """Return the kind of a level; levels of one kind form a sweep. None for a name whose bits are unknown, which belongs to no sweep."""
    try:
        parsed = parse_level(level)
    except UsageError:
        return None
    return parsed.kind if math.isfinite(parsed.strength) else None


def safe_level(sweep: Sequence[Paired], change: str, limit: float) -> str | None:
    """Return the strongest level up to which every level's paired interval stays within the limit; None if the first one does not."""
    safe = None
    for _, cells in groupby(sweep, key=lambda cell: level_strength(cell.row["level"])):
        level = list(cells)
        if any(limit_side(_worse(cell.changes[change], change), limit) is not Side.WITHIN for cell in level):
            break
        safe = level[-1].row["level"]
    return safe


def growth(sweep: Sequence[Paired], limit: float) -> Growth:
    """Return whether the mean set size does not grow, grows gradually or suddenly, or that the sweep is inconclusive."""
    sides = [limit_side(cell.changes["set_size_change"], limit) for cell in sweep]
    if all(side is Side.WITHIN for side in sides):
        return Growth(NO_GROWTH)
    x = np.array([0.0, *(level_strength(cell.row["level"]) for cell in sweep)])
    n_points = np.unique(x).size
    if n_points < MIN_POINTS:
        levels = "1 level" if n_points == 2 else f"{n_points - 1} levels"
        return Growth(TOO_FEW, note=f"{levels} run; at least {MIN_POINTS - 1} needed")
    sizes = _sizes(sweep)
    line = broken_line(x, np.array([size.value for size in sizes]), covariance(sizes), np.random.default_rng(SEED))
    if Side.BEYOND not in sides:
        return Growth(UNCLEAR, line)
    return Growth(THRESHOLD if line.p < SIGNIFICANT else GRADUAL, line)


def covariance(estimates: Sequence[Estimate]) -> FloatArray:
    """Return the (estimate, estimate) covariance over items; a change in one more item is not excluded: it stays definite."""
    return covariances(estimates) + np.eye(len(estimates)) / min(estimate.units for estimate in estimates) ** 2


def _sizes(sweep: Sequence[Paired]) -> list[Estimate]:
    """The mean set size of the dense run and of every level."""
    cells = [sweep[0].before, *(cell.after for cell in sweep)]
    return [on_whole_set(cell.estimates["set_size"], cell) for cell in cells if cell]


def _records(sweep: Sequence[Paired], question: Question, tolerances: Tolerances) -> list[Record]:
    grown = growth(sweep, tolerances.set_size)
    line = grown.line
    shows = {
        "n_levels": len({level_strength(cell.row["level"]) for cell in sweep}),
        "safe_level": safe_level(sweep, "set_size_change", tolerances.set_size),
        "accuracy_safe_level": safe_level(sweep, "accuracy_change", tolerances.accuracy),
        "growth": grown.result,
        "note": grown.note,
        "break_strength": line.break_at if line else None,
        "break_strength_low": line.low if line else None,
        "break_strength_high": line.high if line else None,
        "break_p": line.p if line else None,
    }
    return [pair_record([cell], question, tolerances) | {"strength": level_strength(cell.row["level"])} | shows for cell in sweep]


def _worse(change: Estimate, name: str) -> Estimate:
    """A change with a sign such that more is worse."""
    return -change if name == "accuracy_change" else change
