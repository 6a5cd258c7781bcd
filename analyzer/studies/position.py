"""`analyze position`: does the place at which an option stands change what a model answers?

In: runs of the same items in several cyclic orders of their options (`produce --options-order`).  Out: records of three kinds, `by`:

    position   how often the option at a place is chosen, how often the answer stands there, the difference (`bias`), accuracy there
    order      accuracy and set size in each order, with changes from the items' own order; `mean4` is the mean of probabilities over 4
    all        means over the orders, the spread between them, and the share of items answered alike in all of them

Every item is asked in every order, so all differences are paired by item. Of an unbiased model, the bias of every place is 0. Source of
the effect: Zheng et al. 2024, arXiv:2309.03882; Pezeshkpour & Hruschka 2024, arXiv:2308.11483.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations
from string import ascii_uppercase
from typing import Any

import numpy as np

from analyzer.measure.cell import Cell
from analyzer.measure.question import Question
from analyzer.measure.records import Record, identity, interval_fields, provenance, same_fields, unreliable
from analyzer.protocols import protocol_named
from analyzer.runs.answer_metrics import dependence
from analyzer.runs.loading import Runs
from analyzer.runs.orders import MEAN, MeansOverOrders, Row, runs_by_order
from analyzer.runs.view import RunView
from analyzer.stats.arrays import IntArray
from analyzer.stats.combined import average, difference, ratio
from analyzer.stats.estimate import LEVEL, NOTHING, Estimate, mean
from schemas.errors import RunNotFoundError, UsageError
from schemas.itemset import ItemSet
from schemas.orders import n_turning, positions_in_order

CellKey = tuple[str, Fraction, str]
CHANGED = ("accuracy", "set_size")


@dataclass(frozen=True)
class _Ordered:
    """One run in several orders: its views on the items that are finite in all of them, and their cells; `mean` are those of the mean."""

    prompt: str
    orders: tuple[int, ...]
    views: Sequence[RunView]
    cells: Sequence[Mapping[CellKey, Cell]]
    mean: Mapping[CellKey, Cell]
    question: Question


def position(runs: Runs, question: Question, prompts: Sequence[str] = ()) -> list[Record]:
    """Return the records of every run that was asked in at least two orders.

    prompts : accepted prompts, without their orders; () accepts all.
    Raises RunNotFoundError if there is no such run, UsageError for items whose texts are not kept: which options turn is then unknown.
    """
    runs = runs.clustered(question.clustering)
    orders_by_run = {key: by_order for key, by_order in runs_by_order(runs.rows).items() if not prompts or key[-1] in prompts}
    several = {key: by_order for key, by_order in orders_by_run.items() if len(by_order) > 1}
    if not several:
        asked = f" in prompt {' or '.join(prompts)}" if prompts else ""
        raise RunNotFoundError(f"no run was asked in several orders of its options{asked}; produce --options-order N makes them")
    return same_fields([record for key, by_order in several.items() for record in _records(_ordered(runs, key[-1], by_order, question))])


def _ordered(runs: Runs, prompt: str, by_order: Mapping[int, Row], question: Question) -> _Ordered:
    protocol = protocol_named(question.protocol)
    names = [row["name"] for row in by_order.values()]
    joined = {**next(iter(by_order.values())), "name": "+".join(names), "nonfinite": None}
    averaging = replace(runs, reader=MeansOverOrders(runs.reader, [], {joined["name"]: names}))
    views = [protocol.choose(view) for view in (*map(runs.view, by_order.values()), averaging.view(joined))]
    shared = set(views[0].position.tolist()).intersection(*(view.position.tolist() for view in views[1:]))
    views = [view if view.n_items == len(shared) else view.keep(np.isin(view.position, sorted(shared))) for view in views]
    cells = [
        {(cell.scorer, cell.alpha, cell.group): cell for scorer in question.scorers for cell in protocol.measure(view, scorer, question)}
        for view in views
    ]
    return _Ordered(prompt, tuple(by_order), views[:-1], cells[:-1], cells[-1], question)


def _records(run: _Ordered) -> Iterator[Record]:
    yield from _by_position(run)
    for key, mean_cell in run.mean.items():
        cells = [each[key] for each in run.cells]
        first_cell = cells[0]
        order_cells = [*zip(map(str, run.orders), cells, strict=True), (f"{MEAN}{len(cells)}", mean_cell)]
        for order, cell in order_cells:
            figures = {name: cell.estimates[name] for name in CHANGED}
            changes = {f"{name}_change": _change(cell, first_cell, name) if cell is not first_cell else NOTHING for name in CHANGED}
            yield _record(run, [cell], {"by": "order", "part": order}, {**figures, **changes})
        means = {name: average([cell.estimates[name] for cell in cells]) for name in CHANGED}
        named = {"by": "all", "part": f"{len(cells)} orders", **_spread(cells, "accuracy"), **_spread(cells, "set_size")}
        yield _record(run, cells, named, {**means, "answered_alike": _alike(run)})


def _by_position(run: _Ordered) -> Iterator[Record]:
    """Yield one record per place at which options turn: shares over all items and orders."""
    first = next(iter(run.cells[0].values()))
    if not first.view.n_items:
        return
    turning = _turning(run.views[0].items)[run.views[0].position]
    chosen, standing, right = (np.zeros((first.view.n_items, int(turning.max()))) for _ in range(3))
    for order, view in zip(run.orders, run.views, strict=True):
        positions = positions_in_order(turning, view.logits.shape[1], order)
        rows = np.arange(view.n_items)
        for table, index, counts in ((chosen, view.chosen, True), (standing, view.answer, True), (right, view.answer, view.correct)):
            at = positions[rows, index]
            inside = at < table.shape[1]
            table[rows[inside], at[inside]] += np.broadcast_to(counts, rows.shape)[inside] / len(run.orders)
    clusters = run.views[0].clusters
    for number in range(chosen.shape[1]):
        there = mean(standing[:, number], clusters, share=True)
        figures = {
            "chosen": mean(chosen[:, number], clusters, share=True),
            "answer_there": there,
            "bias": mean(chosen[:, number] - standing[:, number], clusters, least=-1.0, most=1.0),
            "accuracy": ratio(mean(right[:, number], clusters, share=True), there, standing[:, number]),
        }
        cells = [next(iter(each.values())) for each in run.cells]
        fields = {"by": "position", "part": ascii_uppercase[number], "scorer": None, "alpha": None, "n_calibration": None}
        yield _record(run, cells, fields, figures)


def _record(run: _Ordered, cells: Sequence[Cell], named: Mapping[str, Any], figures: Mapping[str, Estimate]) -> Record:
    record = identity(cells) | {"prompt": run.prompt} | dict(named)
    for name, estimate in figures.items():
        record |= interval_fields(name, estimate)
    broken = unreliable(cells if cells[0].view.n_items else [next(iter(run.mean.values()))])  # the mean says what an order broke
    return record | dependence(cells[0].view) | {"design_effect": None, "unreliable": broken} | provenance(cells, run.question)


def _turning(items: ItemSet) -> IntArray:
    """Return how many options of each item of a set change places, (item,)."""
    if not items.texts or not all(item.choices for item in items.items):
        raise UsageError(f"the items of task {items.task!r} are stored without their texts, so nobody knows which of their options turned")
    return np.array([n_turning(list(item.choices.values())) for item in items.items], dtype=np.int64)


def _change(cell: Cell, first_cell: Cell, name: str) -> Estimate:
    after, before = cell.estimates[name], first_cell.estimates[name]
    return difference(after, before) if after.influence.size and before.influence.size else NOTHING


def _alike(run: _Ordered) -> Estimate:
    """Share of items with the same most likely option in every order."""
    chosen = np.stack([view.chosen for view in run.views])
    return mean(np.all(chosen == chosen[0], axis=0), run.views[0].clusters, share=True)


def _spread(cells: Sequence[Cell], name: str) -> Record:
    """Return the largest minus the smallest figure over the orders, with a simultaneous interval over all pairs (Bonferroni)."""
    pairs = [_change(after, before, name) for before, after in combinations(cells, 2)]
    if not all(pair.influence.size for pair in pairs):
        return dict.fromkeys((f"{name}_spread", f"{name}_spread_low", f"{name}_spread_high"))
    both_ways = [one for pair in pairs for one in (pair, -pair)]
    ends = [one.interval(1 - (1 - LEVEL) / len(pairs)) for one in both_ways]
    low, high = max(0.0, *(end.low for end in ends)), max(end.high for end in ends)
    known = np.isfinite([low, high]).all()
    value = max(one.value for one in both_ways)
    return {f"{name}_spread": value, f"{name}_spread_low": low if known else None, f"{name}_spread_high": high if known else None}
