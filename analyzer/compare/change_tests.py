"""Tests of a change in accuracy and in set size: exact for few items, normal for many."""

import math
from collections.abc import Sequence

import numpy as np

from analyzer.compare.paired import Paired
from analyzer.conformal.ranks import threshold_rank
from analyzer.conformal.set_size_interval import FEW_ITEMS, no_interval
from analyzer.conformal.split_law import rank_law
from analyzer.conformal.splits import calibration_size
from analyzer.conformal.swap_test import swap_p
from analyzer.measure.question import Question
from analyzer.measure.scored import scores_of
from analyzer.stats.estimate import Estimate
from analyzer.stats.sign_flips import sign_flip_p
from analyzer.stats.significance import interval_p, mcnemar, paired_p

SEED = 0
FEW_CHANGED = 200  # items or clusters whose mean over prompts changed; with more, the t test is accurate


def accuracy_p(cells: Sequence[Paired], change: Estimate) -> float:
    """Return the p-value of the hypothesis that accuracy did not change; NaN if there is nothing to test.

    One pair of runs gets McNemar's exact test. A mean over prompts, in which an item may change by a fraction, gets the sign-flip test, or
    the paired t test if more than 200 items changed. Of dependent items the signs of whole clusters are flipped, for one pair as well.
    """
    pairs = {id(cell.pair): cell.pair for cell in cells if cell.pair}
    if len(pairs) == 1 and not change.clusters:
        pair = next(iter(pairs.values()))
        before, after = pair.dense.correct, pair.compressed.correct
        return mcnemar(int((before & ~after).sum()), int((~before & after).sum())) if before.size else math.nan
    if change.clusters and np.count_nonzero(change.clusters.share) < 2:
        return math.nan
    moved = change.influence + change.value
    moved = change.clusters.sums(moved) if change.clusters else moved
    if change.influence.size and np.count_nonzero(np.abs(moved) > 1e-12) <= FEW_CHANGED:
        return sign_flip_p(np.where(np.abs(moved) > 1e-12, moved, 0.0), np.random.default_rng(SEED))
    return paired_p(change)


def set_size_p(cells: Sequence[Paired], change: Estimate, question: Question) -> float:
    """Return the p-value of the hypothesis that the set size did not change; NaN if there is nothing to test.

    If few items decide the threshold, the test swaps items, or whole clusters, between the two runs. Otherwise it is Student's t test or,
    at an atom or gap of the score, the level at which the inverted interval begins to contain 0.
    """
    if change.clusters and np.count_nonzero(change.clusters.share) < 2:
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
