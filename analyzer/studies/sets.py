"""`analyze sets`: prediction sets of every run, one record per run, scorer and alpha."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from analyzer.measure.cell import Cell
from analyzer.measure.question import Question
from analyzer.measure.records import Record, average_groups, cell_record, same_fields
from analyzer.measure.unreliable import against_dense
from analyzer.protocols import protocol_named
from analyzer.runs.loading import Runs
from analyzer.runs.pairs import Partners
from analyzer.runs.view import RunView
from schemas.errors import ComparisonError

RECENT = 2  # in reading order a dense run comes right before the runs compared with it


def sets(runs: Runs, question: Question, *, average: bool = False) -> list[Record]:
    """Return the records of every run.

    average : return means over prompts and scorers instead, one record per model, method, level, task and alpha.
    """
    cells = measure_runs(runs, question)
    groups = average_groups(cells) if average else ([cell] for cell in cells)
    return same_fields([cell_record(group, question) for group in groups])


def measure_runs(runs: Runs, question: Question) -> Iterator[Cell]:
    """Yield the cells of every run and scorer, in reading order; a run's arrays are released once it is measured.

    A run whose answers differ widely from those of its dense run is flagged, if that run is selected too.
    """
    runs, protocol, partners = runs.clustered(question.clustering), protocol_named(question.protocol), Partners(runs.rows)
    load = lru_cache(maxsize=RECENT)(lambda name: runs.view(next(row for row in runs.rows if row["name"] == name)))
    for row in runs.rows:
        partner = _partner(partners, row)
        reasons = _reasons(load(row["name"]), load(partner["name"])) if partner else ()
        chosen = protocol.choose(load(row["name"]))
        for scorer in question.scorers:
            for cell in protocol.measure(chosen, scorer, question):
                yield replace(cell, reasons=(*reasons, *cell.reasons)) if reasons else cell


def _partner(partners: Partners, row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The dense run over the same items; None if it is ambiguous."""
    try:
        partner = partners.of(row)
    except ComparisonError:
        return None
    return partner if partner and partner["items_hash"] == row["items_hash"] else None


def _reasons(view: RunView, dense: RunView) -> tuple[str, ...]:
    return against_dense(view, dense) if view.n_items and dense.n_items else ()
