"""Every selected run measured beside its partner, the run it is compared with.

Changes carry each item's influence, so that averages over runs stay paired. Runs come in an order in which a partner is measured once
and kept while it is needed.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from analyzer.measure.cell import Cell
from analyzer.measure.question import Question
from analyzer.measure.unreliable import against_dense, asked_otherwise
from analyzer.protocols import protocol_named
from analyzer.runs.loading import Runs, reading_order
from analyzer.runs.pairs import Pair, Partners, pair_views
from analyzer.runs.view import RunView
from analyzer.stats.arrays import BoolArray, sum_of_known
from analyzer.stats.clusters import Clusters
from analyzer.stats.combined import difference
from analyzer.stats.estimate import NOTHING, Estimate, mean
from schemas.errors import RunNotFoundError
from schemas.run import DENSE

log = logging.getLogger(__name__)

CHANGED = ("accuracy", "coverage", "set_size", "uacc")
ITEM_CHANGES = ("flips", "flips_to_wrong", "flips_to_right", "answers_changed", "kl", "kl_reverse", "js", "option_mass_change")
PARTNERS_KEPT = 8  # dense runs of one model and task, one per prompt

Cells = dict[tuple[str, Fraction], Cell]
Row = Mapping[str, Any]


class MeasuredRun(NamedTuple):
    """A run's items under the protocol, and its cells by scorer and alpha."""

    view: RunView
    cells: Cells


@dataclass(frozen=True)
class Paired:
    """One run under one scorer and alpha, beside its partner on the items of both.

    after, before : cells of the run and of its partner; before is None for a run without one, such as a dense run.
    pair          : the two views that they were measured on.
    changes       : estimates by name: after - before of accuracy, coverage, set size and uacc; flips, divergences, option mass.
    """

    after: Cell
    before: Cell | None = None
    pair: Pair | None = None
    changes: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def row(self) -> Row:
        """The run's row of the catalog."""
        return self.after.view.row


def paired(runs: Runs, question: Question, partners: Partners | None = None) -> Iterator[Paired]:
    """Yield one cell per run, scorer and alpha; the prompts of one model, method and level follow each other.

    partners : which run each is compared with; None means its own dense run.
    Raises RunNotFoundError if no selected run has a partner.
    """
    runs, chosen = runs.clustered(question.clustering), partners or Partners(runs.rows)
    pairs = [(row, chosen.of(row)) for row in sorted(runs.rows, key=_measuring_order)]
    if not any(partner for _, partner in pairs):
        raise RunNotFoundError(f"nothing to compare: {_why_not(runs, chosen)}")
    keep = lru_cache(maxsize=PARTNERS_KEPT)(lambda name: _measure(runs, by_name[name], question))
    by_name = {row["name"]: row for row in runs.rows}
    is_partner = {partner["name"] for _, partner in pairs if partner}
    for row, partner in pairs:
        run = keep(row["name"]) if row["name"] in is_partner else _measure(runs, row, question)
        yield from _cells_of(run, keep, partner, question, chosen.common_items)


def compressed_pairs(runs: Runs, question: Question, partners: Partners | None = None) -> Iterator[Paired]:
    """Yield the cells that have a partner."""
    return (cell for cell in paired(runs, question, partners) if cell.before)


def item_changes(pair: Pair) -> Mapping[str, Estimate]:
    """Return what compression changed item by item, each an estimate of a mean over the items of a pair.

    flips              : share of items that turn from right to wrong (flips_to_wrong) or from wrong to right (flips_to_right).
    answers_changed    : share of items whose most likely option changes at all, wrong to other wrong included.
    kl, kl_reverse, js : KL(dense || compressed), KL(compressed || dense), Jensen-Shannon divergence over the options, nats.
    option_mass_change : change of the options' share of the full vocabulary's prob; NOTHING if a run did not record it.
    """
    if not pair.dense.n_items:
        return dict.fromkeys(ITEM_CHANGES, NOTHING)
    before, after, clusters = pair.dense.correct, pair.compressed.correct, pair.compressed.clusters
    changes: dict[str, Estimate] = {
        "flips": _share(before != after, clusters),
        "flips_to_wrong": _share(before & ~after, clusters),
        "flips_to_right": _share(~before & after, clusters),
        "answers_changed": _share(pair.dense.chosen != pair.compressed.chosen, clusters),
    }
    return changes | _divergences(pair) | {"option_mass_change": _option_mass_change(pair)}


def _cells_of(
    run: MeasuredRun, measure: Callable[[str], MeasuredRun], partner: Row | None, question: Question, common_items: bool
) -> Iterator[Paired]:
    if partner is None:
        if run.view.row["method"] != DENSE:
            log.warning("%s has no dense run of the same model, task and prompt to be compared with", run.view.row["name"])
        yield from (Paired(cell) for cell in run.cells.values())
        return
    dense = measure(partner["name"])
    pair = pair_views(dense.view, run.view, common_items=common_items)
    before, after = _on_view(dense, pair.dense, question), _on_view(run, pair.compressed, question)
    shared = dict(item_changes(pair))
    same_model = run.view.row["model"] == dense.view.row["model"]  # another model may well answer E or F more often
    unlike = against_dense if same_model and pair.dense.n_items else asked_otherwise
    far = unlike(pair.compressed, pair.dense)
    for key, cell in after.items():
        yield Paired(replace(cell, reasons=(*far, *cell.reasons)), before[key], pair, _cell_changes(before[key], cell) | shared)


def _cell_changes(before: Cell, after: Cell) -> dict[str, Estimate]:
    return {f"{name}_change": difference(after.estimates[name], before.estimates[name]) for name in CHANGED}


def _measure(runs: Runs, row: Row, question: Question) -> MeasuredRun:
    view = protocol_named(question.protocol).choose(runs.view(row))
    return MeasuredRun(view, _cells(view, question))


def _on_view(run: MeasuredRun, view: RunView, question: Question) -> Cells:
    """The cells on the items of a pair: those already measured, unless the partner lacks some items."""
    return run.cells if view is run.view else _cells(view, question)


def _cells(view: RunView, question: Question) -> Cells:
    protocol = protocol_named(question.protocol)
    return {(cell.scorer, cell.alpha): cell for scorer in question.scorers for cell in protocol.measure(view, scorer, question)}


def _measuring_order(row: Row) -> tuple[Any, ...]:
    model, task, prompt, *rest = reading_order(row)
    return task, row["items_hash"], model, *rest[:-1], prompt, rest[-1]


def _why_not(runs: Runs, partners: Partners) -> str:
    if partners.against:
        return f"none of {len(runs.rows)} selected runs shares task and prompt with a dense run of model {partners.against!r}"
    rows = [row for row in runs.rows if row["method"] != DENSE]
    if not rows:
        return f"none of {len(runs.rows)} selected runs is compressed"
    lacking = f"none of {len(rows)} selected compressed runs has a dense run of its model, task and prompt"
    tasks = {row["task"] for row in rows}
    dense = sorted({row["model"] for row in runs.reader.catalog.to_dicts() if row["method"] == DENSE and row["task"] in tasks})
    make = f"make one with: produce --model {rows[0]['model']} --method dense --task {rows[0]['task']}"
    if not dense:
        return f"{lacking}; {make}"
    return f"{lacking}; name the model that they were made from, such as {dense[0]}, with --against, or {make}"


def _share(happens: BoolArray, clusters: Clusters | None) -> Estimate:
    return mean(happens, clusters, share=True)


def _divergences(pair: Pair) -> dict[str, Estimate]:
    p, q = pair.dense.probs, pair.compressed.probs
    log_p, log_q = pair.dense.log_probs, pair.compressed.log_probs
    with np.errstate(divide="ignore", invalid="ignore"):  # where both probs are 0, the divergence has no term; NaN is left out
        log_middle = np.log(p + q) - math.log(2)
        per_item = {
            "kl": sum_of_known(p * (log_p - log_q)),
            "kl_reverse": sum_of_known(q * (log_q - log_p)),
            "js": sum_of_known(p * (log_p - log_middle) + q * (log_q - log_middle)) / 2,
        }
    most = {"kl": math.inf, "kl_reverse": math.inf, "js": math.log(2)}
    clusters = pair.compressed.clusters
    means = {name: mean(np.maximum(values, 0.0), clusters, least=0.0, most=most[name]) for name, values in per_item.items()}
    return {name: replace(estimate, skewed=True) for name, estimate in means.items()}


def _option_mass_change(pair: Pair) -> Estimate:
    masses = [view.option_mass for view in pair]
    known = all(np.isfinite(mass).all() for mass in masses)
    return mean(masses[1] - masses[0], pair.compressed.clusters, least=-1.0, most=1.0) if known else NOTHING
