"""`analyze compare`: every compressed run against its dense run on the same items and splits."""

import logging
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from analyzer.estimate import Estimate, difference
from analyzer.loading import Runs
from analyzer.measured import NOTHING, Measured
from analyzer.pairs import dense_partner, flips, kl, pair_views
from analyzer.protocols import rules
from analyzer.question import Question
from analyzer.records import Record, cell_record
from analyzer.view import RunView
from schemas.errors import RunNotFoundError
from schemas.run import DENSE

log = logging.getLogger(__name__)

CHANGED = ("accuracy", "coverage", "set_size", "uacc")
UNPAIRED = dict.fromkeys([*(f"{name}_change" for name in CHANGED), "flips", "kl"], NOTHING)
RECENT = 2  # in reading order a dense run comes right before the runs compared with it

Cells = dict[tuple[str, Fraction], Measured]
Row = Mapping[str, Any]


class MeasuredRun(NamedTuple):
    """A run's items under the protocol, and its cells by scorer and alpha."""

    view: RunView
    cells: Cells


def compare(runs: Runs, question: Question) -> list[Record]:
    """Return one record per run, scorer and alpha; changes, flips and KL are null for a dense run and for a run without one.

    Raises RunNotFoundError where no selected run has a dense partner.
    """
    partners = {row["name"]: dense_partner(row, runs.rows) for row in runs.rows}
    if not any(partners.values()):
        raise RunNotFoundError(f"nothing to compare: none of {len(runs.rows)} selected runs is compressed and has a dense run of its items")
    measure = lru_cache(maxsize=RECENT)(lambda name: _measure(runs, name, question))
    return [record for row in runs.rows for record in _records(row, partners[row["name"]], measure, question)]


def changes(before: Measured, after: Measured) -> dict[str, Estimate]:
    """Return the paired change of every figure, compressed minus dense."""
    return {f"{name}_change": difference(after.estimates[name], before.estimates[name]) for name in CHANGED}


def _records(row: Row, partner: Row | None, measure: Callable[[str], MeasuredRun], question: Question) -> Iterator[Record]:
    run = measure(row["name"])
    if partner is None:
        if row["method"] != DENSE:
            log.warning("%s has no dense run of the same items to be compared with", row["name"])
        yield from (cell_record([cell], question, UNPAIRED) for cell in run.cells.values())
        return
    dense = measure(partner["name"])
    pair = pair_views(dense.view, run.view)
    before, after = _common(dense, pair.dense, question), _common(run, pair.compressed, question)
    shared = {"flips": flips(pair), "kl": kl(pair)}
    for key, cell in after.items():
        yield cell_record([cell], question, changes(before[key], cell) | shared)


def _measure(runs: Runs, name: str, question: Question) -> MeasuredRun:
    row = next(row for row in runs.rows if row["name"] == name)
    view = rules(question.protocol).choose(runs.view(row))
    return MeasuredRun(view, _cells(view, question))


def _common(run: MeasuredRun, view: RunView, question: Question) -> Cells:
    """The cells on the items of a pair: those already measured, unless the partner lacks some items."""
    return run.cells if view.n_items == run.view.n_items else _cells(view, question)


def _cells(view: RunView, question: Question) -> Cells:
    protocol = rules(question.protocol)
    return {(cell.scorer, cell.alpha): cell for scorer in question.scorers for cell in protocol.measure(view, scorer, question)}
