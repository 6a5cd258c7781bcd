"""`analyze transfer`: what happens if a threshold made on one run is reused for another, instead of calibrating that one?

The dense run's threshold for the compressed run (the default), a prompt's for another prompt, a task's for another task, all other
subjects' for a subject; each beside what calibrating on the target itself gives.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, permutations
from typing import Any

import numpy as np

from analyzer.compare.paired import Paired, compressed_pairs
from analyzer.compare.two_axis_verdict import Side, limit_side
from analyzer.measure.cell import Cell
from analyzer.measure.measure_run import measure_run
from analyzer.measure.question import Question
from analyzer.measure.records import Record, identity, interval_fields, provenance, unreliable
from analyzer.runs.answer_metrics import dependence
from analyzer.runs.loading import Runs
from analyzer.runs.pairs import Partners, pair_views
from analyzer.runs.view import RunView
from analyzer.stats.arrays import BoolArray
from analyzer.stats.combined import difference
from analyzer.stats.estimate import NOTHING, Estimate
from analyzer.studies.carry_threshold import CARRIED, carry, carry_apart, carry_to_subject, check_exact, joined
from schemas.errors import RunNotFoundError, UsageError
from schemas.fields import MADE_WITH
from schemas.numbers import check_tolerance

COVERAGE_TOLERANCE = 0.01
FINDINGS = {Side.WITHIN: "covers", Side.BEYOND: "undercovers", Side.UNKNOWN: "inconclusive"}


@dataclass(frozen=True)
class Transfer:
    """One reused threshold: coverage and set size with it (`carried`) and after calibrating on the target (`recalibrated`).

    source : name of what the threshold was made on.  target : a cell of the run that it is used for."""

    source: str
    target: Cell
    carried: Mapping[str, Estimate]
    recalibrated: Mapping[str, Estimate]
    unreliable: str | None


def check_source(source: str, against: str | None) -> None:
    """Raise UsageError for an unknown source, or if another model's dense run is named and the reused threshold is not a dense run's."""
    if source != "dense" and source not in SOURCES:
        raise UsageError(f"a threshold cannot be reused from {source!r:.40}; expected dense, {', '.join(SOURCES)}")
    if against is not None and source != "dense":
        raise UsageError(f"--against names the model whose dense threshold is reused, and here that of another {source} is; leave one out")


def transfer(
    runs: Runs, question: Question, source: str = "dense", tolerance: float = COVERAGE_TOLERANCE, partners: Partners | None = None
) -> list[Record]:
    """Return one record per source and target, scorer and alpha.

    source    : whose threshold is reused: dense, or a name of SOURCES.
    tolerance : how far coverage may fall below 1 - alpha and still count as covering, a share.
    partners  : whose dense threshold each run gets; None means that of its own model.
    Raises RunNotFoundError if no two selected runs differ only in the source, UsageError for drawn splits.
    """
    check_exact(question, "transfer")
    check_tolerance(tolerance, "the tolerance of coverage")
    check_source(source, partners.against if partners else None)
    clustered = runs.clustered(question.clustering)
    cells = compressed_pairs(clustered, question, partners) if source == "dense" else ()
    reuses = _kept_from_dense(cells, question) if source == "dense" else SOURCES[source](clustered, question)
    records = [_record(reuse, question, tolerance) for reuse in reuses]
    if not records:
        raise RunNotFoundError(f"no threshold to keep: the {len(runs.rows)} selected runs hold no two that differ only in {source}")
    return records


def kept_from_dense(cells: Iterable[Paired], question: Question, tolerance: float = COVERAGE_TOLERANCE) -> list[Record]:
    """Return the records of dense thresholds reused for compressed runs, from cells that are already measured."""
    check_exact(question, "transfer")
    return [_record(reuse, question, tolerance) for reuse in _kept_from_dense(cells, question)]


def carried_coverage(cell: Paired, question: Question, chosen: BoolArray | None = None) -> Estimate:
    """Return the coverage of a compressed run under its dense run's thresholds; NOTHING if they share fewer than two finite items.

    chosen : (item,) bool, the items whose coverage is returned; None for all. Thresholds are made on all items either way.
    """
    check_exact(question, "coverage after transfer")
    assert cell.pair is not None
    dense, compressed = cell.pair
    if dense.n_items < 2:
        return NOTHING
    if chosen is None:
        return carry(dense, compressed, cell.after, question)["coverage"]
    return carry_to_subject(dense, compressed, chosen, cell.after, question)["coverage"]


def _kept_from_dense(cells: Iterable[Paired], question: Question) -> Iterator[Transfer]:
    for cell in cells:
        assert cell.pair is not None and cell.before is not None
        if cell.pair.dense.n_items > 1:
            carried = carry(*cell.pair, cell.after, question)
            yield Transfer(cell.before.view.row["name"], cell.after, carried, cell.after.estimates, unreliable([cell.before, cell.after]))


def _from_prompts(runs: Runs, question: Question) -> Iterator[Transfer]:
    """Every ordered pair of prompts of one run, over the items that both answered."""
    for one, other in _pairs(runs, ("model", "method", "level", "task", "items_hash", *MADE_WITH), "prompt"):
        source, target = pair_views(one, other)
        for cell in _cells(target, question):
            carried = carry(source, target, cell, question)
            yield Transfer(source.row["prompt"], cell, carried, cell.estimates, unreliable([cell]))


def _from_tasks(runs: Runs, question: Question) -> Iterator[Transfer]:
    """Every ordered pair of tasks under one prompt; no item is in both."""
    for source, target in _pairs(runs, ("model", "method", "level", "prompt", "settings_hash"), "task"):
        for cell in _cells(target, question):
            yield _apart(source.row["task"], source, target, cell, question)


def _from_subjects(runs: Runs, question: Question) -> Iterator[Transfer]:
    """The threshold of all other subjects for each subject that is large enough to be calibrated by itself."""
    for view in runs.views():
        subject = view.items.subject[view.position]
        for number, name in enumerate(view.items.subjects):
            inside = subject == number
            if min(inside.sum(), (~inside).sum()) > 1:
                target = view.keep(inside)
                for cell in _cells(target, question):
                    yield _apart(f"all but {name}", view.keep(~inside), target, cell, question)


SOURCES: dict[str, Callable[[Runs, Question], Iterator[Transfer]]] = {
    "prompt": _from_prompts,
    "task": _from_tasks,
    "subject": _from_subjects,
}


def _apart(name: str, source: RunView, target: RunView, cell: Cell, question: Question) -> Transfer:
    carried = carry_apart(source, target, cell, question)
    nobody = np.zeros(source.n_items)
    recalibrated = {
        name: replace(
            estimate, influence=joined(source.n_items, target.n_items, nobody, estimate.influence), clusters=carried[name].clusters
        )
        for name, estimate in cell.estimates.items()
        if name in CARRIED
    }
    return Transfer(name, cell, carried, recalibrated, unreliable([cell]))


def _pairs(runs: Runs, same: Sequence[str], differs: str) -> Iterator[tuple[RunView, RunView]]:
    """Ordered pairs of runs that agree in some fields and differ in one; few runs in memory at a time."""

    def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row[field] for field in same)

    for _, rows in groupby(sorted(runs.rows, key=key), key=key):
        views = [view for view in map(runs.view, rows) if view.n_items > 1]
        yield from ((one, other) for one, other in permutations(views, 2) if one.row[differs] != other.row[differs])


def _cells(view: RunView, question: Question) -> Iterator[Cell]:
    return (cell for scorer in question.scorers for cell in measure_run(view, scorer, question))


def _record(reuse: Transfer, question: Question, tolerance: float) -> Record:
    cell = reuse.target
    record = identity([cell]) | {"source": reuse.source}
    for name in CARRIED:
        record |= interval_fields(name, reuse.carried[name])
        record |= interval_fields(f"recalibrated_{name}", reuse.recalibrated[name])
        record |= interval_fields(f"{name}_change", difference(reuse.carried[name], reuse.recalibrated[name]))
    record["finding"] = FINDINGS[limit_side(reuse.carried["coverage"].complement(), float(cell.alpha) + tolerance)]
    return record | dependence(cell.view) | {"unreliable": reuse.unreliable} | provenance([cell], question)
