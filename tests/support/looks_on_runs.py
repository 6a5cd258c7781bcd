"""How many items a planned gate uses on stored runs, against a fixed design with all items; prints rows of analyzer/validity.md.

    produce --store STORE --model ref-s --model ref-m --model ref-l --model ref-moe --task urn --limit 2000 --method dense ...
    PYTHONPATH=tests/support python tests/support/looks_on_runs.py STORE ORDERS [METHOD ...]

A look's items are the first of a seeded order of each task's, so that every order is another growing sample; a model is judged over all its
tasks together, as `produce --until` does it. Limits are fixed here. The fixed design asks once with all 2,000 items of each task. A planned
decision is right if it is the fixed design's, wrong if it is the opposite one.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.compare.paired import Paired, compressed_pairs
from analyzer.gate.gate import INCONCLUSIVE, CompressedModel, check_pairs, compressed_model, outcome
from analyzer.gate.looks import Looks
from analyzer.gate.policy import Limit
from analyzer.measure.question import Question
from analyzer.runs.clustering import parse_clustering
from analyzer.runs.loading import Runs, open_runs
from analyzer.runs.view import RunView
from analyzer.stats.arrays import IntArray

ITEMS = (250, 500, 1_000, 2_000)
PLANS = {spending: Looks(items=ITEMS, spending=spending) for spending in ("obrien-fleming", "pocock")}
LIMITS = [
    Limit("accuracy_loss", 0.02),
    Limit("flips", 0.05),
    Limit("kl", 0.1),
    Limit("set_size_growth", 0.1),
    Limit("coverage_after_transfer", 0.88),
]
POLICIES = {limit.figure: [limit] for limit in LIMITS} | {"all five": LIMITS}
LAC = Question(scorers=("lac",), clustering=parse_clustering("item"))  # the embedded tasks draw their questions independently


@dataclass(frozen=True, kw_only=True)
class FirstItems(Runs):
    """Runs of which only the first items of an order are seen.

    whole  : arrays of all items by name of the run.
    chosen : numbers of the items seen, by task.
    """

    whole: Mapping[str, RunView]
    chosen: Mapping[str, IntArray]

    def view(self, row: Mapping[str, Any]) -> RunView:
        """Return the arrays of the run's chosen items."""
        return self.whole[row["name"]].keep(self.chosen[row["task"]])


@dataclass
class Tally:
    """A policy's models under one plan: items used until the decision, and how the decisions compare with the fixed design's."""

    items: list[int]
    items_of_right: list[int]
    counts: Counter[str]


def tallies(runs: Runs, orders: int) -> Iterator[tuple[str, str, Tally]]:
    """Yield policy, plan and tally, over all models that have a dense partner and all orders."""
    whole = {view.row["name"]: view for view in runs.clustered(LAC.clustering).views()}
    tasks = sorted({row["task"] for row in runs.rows})
    tally_of = {(policy, plan): Tally([], [], Counter()) for policy in POLICIES for plan in PLANS}
    for seed in range(orders):
        order = {task: np.random.default_rng([seed, number]).permutation(ITEMS[-1]) for number, task in enumerate(tasks)}
        cells_of = {n: _by_model(runs, whole, {task: np.sort(places[:n]) for task, places in order.items()}) for n in ITEMS}
        for model in cells_of[ITEMS[-1]]:
            looks = {n: cells_of[n][model] for n in ITEMS}
            for policy, limits in POLICIES.items():
                fixed = decision(looks[ITEMS[-1]], limits, None)
                for plan, planned in PLANS.items():
                    _count(tally_of[policy, plan], fixed, *first_decision(looks, limits, planned))
    for (policy, plan), tally in tally_of.items():
        yield policy, plan, tally


def _by_model(runs: Runs, whole: Mapping[str, RunView], chosen: Mapping[str, IntArray]) -> dict[CompressedModel, list[Paired]]:
    cells: dict[CompressedModel, list[Paired]] = {}
    for cell in compressed_pairs(FirstItems(runs.reader, runs.rows, whole=whole, chosen=chosen), LAC):
        cells.setdefault(compressed_model(cell), []).append(cell)
    return cells


def decision(cells: list[Paired], limits: list[Limit], looks: Looks | None) -> str:
    """Return the outcome of the limits alone; whether the runs are reliable does not depend on looks."""
    return outcome([record for record in check_pairs(cells, LAC, limits, looks) if record["limit"] is not None])


def first_decision(looks: Mapping[int, list[Paired]], limits: list[Limit], plan: Looks) -> tuple[str, int]:
    """Return the decision of the first look that comes to one, else inconclusive, and the number of items of each task used by then."""
    for n_items, cells in looks.items():
        result = decision(cells, limits, plan)
        if result != INCONCLUSIVE:
            return result, n_items
    return INCONCLUSIVE, ITEMS[-1]


def _count(tally: Tally, fixed: str, result: str, n_items: int) -> None:
    tally.items.append(n_items)
    if result == fixed != INCONCLUSIVE:
        tally.items_of_right.append(n_items)
    tally.counts["decided by the fixed design"] += fixed != INCONCLUSIVE
    tally.counts["right"] += result == fixed != INCONCLUSIVE
    tally.counts["left open"] += result == INCONCLUSIVE != fixed
    tally.counts["wrong"] += INCONCLUSIVE not in (result, fixed) and result != fixed
    tally.counts["decided alone"] += fixed == INCONCLUSIVE != result


if __name__ == "__main__":
    for policy, plan, tally in tallies(open_runs(sys.argv[1], None, {"method": sys.argv[3:]}, with_dense=True), int(sys.argv[2])):
        counts, n = tally.counts, len(tally.items)
        cells = [f"{counts[word]:,}" for word in ("decided by the fixed design", "right", "left open", "wrong", "decided alone")]
        mean = f"{np.mean(tally.items_of_right):,.0f}" if tally.items_of_right else "-"
        print(f"| {policy} | {plan} | {n:,} | {' | '.join(cells)} | {mean} | {np.mean(tally.items):,.0f} |", flush=True)
