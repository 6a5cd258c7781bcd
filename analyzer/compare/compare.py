"""`analyze compare`: every compressed run beside its dense run on the same items and splits, with tests and a verdict.

The tests of a change in accuracy and in set size are exact for few items, and normal for many.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np

from analyzer.compare.paired import CHANGED, ITEM_CHANGES, Paired, paired
from analyzer.compare.two_axis_verdict import Tolerances, borne_out, verdict
from analyzer.conformal.ranks import threshold_rank
from analyzer.conformal.set_size_interval import FEW_ITEMS, no_interval
from analyzer.conformal.split_law import rank_law
from analyzer.conformal.splits import calibration_size
from analyzer.conformal.swap_test import swap_p
from analyzer.measure.question import Question
from analyzer.measure.records import Record, cell_record, mean_over, unreliable
from analyzer.measure.scored import scores_of
from analyzer.runs.loading import Runs, reading_order
from analyzer.runs.pairs import Partners
from analyzer.stats.combined import correlation
from analyzer.stats.estimate import NOTHING, Estimate
from analyzer.stats.significance import detectable, holm, interval_p, mcnemar, paired_p, sign_flip_p
from schemas.fields import averaged_together

ALL_CHANGES = (*(f"{name}_change" for name in CHANGED), *ITEM_CHANGES)
TESTED = ("accuracy", "set_size")
SEED = 0
FEW_CHANGED = 200  # items or clusters whose mean over prompts changed; with more, the t test is accurate


def compare(
    runs: Runs,
    question: Question,
    *,
    partners: Partners | None = None,
    tolerances: Tolerances | None = None,
    average: bool = False,
) -> list[Record]:
    """Return one record per run, scorer and alpha; the changes of a run without a partner are null.

    partners : which run each is compared with; None means its own dense run.
    average  : return means over prompts and scorers instead, one record per model, method, level, task and alpha.
    Raises RunNotFoundError if no selected run has a partner, ComparisonError if two runs answered different questions.
    """
    groups = averaged(paired(runs, question, partners)) if average else ([cell] for cell in paired(runs, question, partners))
    ordered_records = [(reading_order(group[0].row), pair_record(group, question, tolerances or Tolerances())) for group in groups]
    return add_holm([record for _, record in sorted(ordered_records, key=itemgetter(0))])


def averaged(cells: Iterable[Paired]) -> Iterator[list[Paired]]:
    """Yield the cells of runs that differ in nothing but the wording of the prompt together, for one alpha: prompts and scorers."""

    def key(cell: Paired) -> tuple[Any, ...]:
        row = cell.row
        return row["model"], row["method"], row["level"], row["task"], row["items_hash"]

    for _, runs in groupby(cells, key=key):
        groups: dict[tuple[Any, ...], list[Paired]] = {}
        for cell in runs:
            groups.setdefault((*averaged_together(cell.row), cell.after.alpha), []).append(cell)
        yield from groups.values()


def pair_record(cells: Sequence[Paired], question: Question, tolerances: Tolerances) -> Record:
    """Return the record of one pair, or of the mean over several (prompts, scorers), with its tests and verdict."""
    changes = {name: mean_change(cells, name) for name in ALL_CHANGES}
    record = cell_record([cell.after for cell in cells], question, changes)
    record["compared_with"] = "+".join(dict.fromkeys(cell.before.view.row["name"] for cell in cells if cell.before)) or None
    record["accuracy_p"] = _finite(_accuracy_p(cells, changes["accuracy_change"]))
    record["set_size_p"] = _finite(_set_size_p(cells, changes["set_size_change"], question))
    record["error_correlation"] = _finite(correlation(changes["accuracy_change"], changes["set_size_change"]))
    for name in TESTED:
        record[f"{name}_detectable"] = _finite(detectable(changes[f"{name}_change"]))
    record["verdict"] = verdict(changes["accuracy_change"], changes["set_size_change"], tolerances) if record["compared_with"] else None
    record["unreliable"] = pair_unreliable(cells)
    return record


def mean_change(cells: Sequence[Paired], name: str) -> Estimate:
    """Return the mean of one change over cells of the same items; NOTHING if one of them has no such change."""
    changes = [cell.changes.get(name, NOTHING) for cell in cells]
    return mean_over([cell.after for cell in cells], changes) if all(estimate.influence.size for estimate in changes) else NOTHING


def pair_unreliable(cells: Sequence[Paired]) -> str | None:
    """Return every reason not to trust a comparison: those of the compressed runs and those of their dense runs."""
    before, after = unreliable(cell.before for cell in cells if cell.before), unreliable(cell.after for cell in cells)
    of_dense = "the same holds for the run it is compared with" if before == after else f"compared with an unreliable run: {before}"
    reasons = [after, before and of_dense]
    return "; ".join(filter(None, reasons)) or None


def add_holm(records: list[Record]) -> list[Record]:
    """Add p-values corrected over the whole table, both axes together, and withdraw verdicts of a change that they do not support.

    A pair's accuracy is tested once, whatever its scorers and alphas.
    """
    tests = {_test(record, name): record[f"{name}_p"] for record in records for name in TESTED if record[f"{name}_p"] is not None}
    adjusted = holm(tests)
    for record in records:
        for name in TESTED:
            record[f"{name}_p_holm"] = adjusted.get(_test(record, name))
        if record["verdict"]:
            record["verdict"] = borne_out(record["verdict"], record["accuracy_p_holm"], record["set_size_p_holm"])
    return records


def _test(record: Record, name: str) -> tuple[Any, ...]:
    pair = record["run"], record["compared_with"]
    return (name, *pair) if name == "accuracy" else (name, *pair, record["scorer"], record["alpha"])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _accuracy_p(cells: Sequence[Paired], change: Estimate) -> float:
    """Return the p-value of the hypothesis that accuracy did not change; NaN if there is nothing to test.

    One pair of runs gets McNemar's exact test. A mean over prompts, in which an item may change by a fraction, gets the sign-flip test, or
    the paired t test if more than 200 items changed. Of dependent items the signs of whole clusters are flipped, for one pair as well.
    """
    pairs = {id(cell.pair): cell.pair for cell in cells if cell.pair}
    if len(pairs) == 1 and not change.clusters:
        pair = next(iter(pairs.values()))
        before, after = pair.dense.correct, pair.compressed.correct
        return mcnemar(int((before & ~after).sum()), int((~before & after).sum())) if before.size else math.nan
    if change.clusters and change.clusters.count < 2:
        return math.nan
    moved = change.influence + change.value
    moved = change.clusters.sums(moved) if change.clusters else moved
    if change.influence.size and np.count_nonzero(np.abs(moved) > 1e-12) <= FEW_CHANGED:
        return sign_flip_p(np.where(np.abs(moved) > 1e-12, moved, 0.0), np.random.default_rng(SEED))
    return paired_p(change)


def _set_size_p(cells: Sequence[Paired], change: Estimate, question: Question) -> float:
    """Return the p-value of the hypothesis that the set size did not change; NaN if there is nothing to test.

    If few items decide the threshold, the test swaps items, or whole clusters, between the two runs. Otherwise it is Student's t test or,
    at an atom or gap of the score, the level at which the inverted interval begins to contain 0.
    """
    if change.clusters and change.clusters.count < 2:
        return math.nan
    if len(cells) == 1 and change.influence.size and _few(cells[0], question):
        return _swapped(cells[0], question)
    return interval_p(change) if change.inverted else paired_p(change)


def _few(cell: Paired, question: Question) -> bool:
    if question.protocol != "exact" or not question.split.exact or question.mondrian != "none" or question.empty != "keep":
        return False
    assert cell.pair is not None
    n_items = cell.pair.dense.n_items
    n = calibration_size(n_items, question.calibration_fraction)
    k = threshold_rank(n, cell.after.alpha)
    return k <= n and (n_items <= FEW_ITEMS or no_interval(rank_law(n_items, n, k)) is not None)


def _swapped(cell: Paired, question: Question) -> float:
    assert cell.pair is not None
    dense, compressed = cell.pair
    n = calibration_size(dense.n_items, question.calibration_fraction)
    law = rank_law(dense.n_items, n, threshold_rank(n, cell.after.alpha))
    before, after = (scores_of(view, view.probs, cell.after.scorer, question) for view in (dense, compressed))
    return swap_p((before, after), dense.answer, law, np.random.default_rng(SEED), dense.clusters)
