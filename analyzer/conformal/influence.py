"""The influence of each item on an estimate, from which intervals and paired differences follow.

An item has two effects, which are added: its own set if it is tested, and the effect of its answer score on the threshold if it
calibrates. Averaged over the distribution of the threshold's rank, this is the derivative of the mean over all splits in the item's
weight; the derivation is in exact_law.md.
"""

from typing import NamedTuple

import numpy as np

from analyzer.conformal.split_law import RankLaw, SetStatistics
from analyzer.stats.arrays import BoolArray, FloatArray, IntArray


class DrawnLaw(NamedTuple):
    """What `split_influence` needs to know about drawn splits.

    tested   : (item,) share of the splits in which an item is tested.
    at_least : (rank,) share of the splits whose threshold's rank is at least that, ranks 0 to N + 1.
    """

    tested: FloatArray
    at_least: FloatArray


def split_influence(law: RankLaw, item_rank: IntArray, statistics: SetStatistics, drawn: DrawnLaw | None = None) -> FloatArray:
    """Return (statistic, item) influence, mean zero, of each item on every statistic of the test items.

    item_rank : (item,) rank of each item's answer score.
    drawn     : the drawn splits; None means all splits.
    """
    at_least = law.at_least() if drawn is None else drawn.at_least
    as_tested = statistics.steps @ at_least.take(statistics.table.rows, mode="clip")  # twice as fast as with checked ranks
    entering = statistics.table.enter[:, law.first + 1 : law.first + 1 + law.weights.size].astype(np.float64)
    jumps = statistics.steps @ entering
    if drawn is None:
        as_tested -= threshold_pull(law, item_rank, jumps)
        return _centred(as_tested)
    as_calibration = _centred(-np.outer(jumps @ law.weights, at_least[item_rank]))
    n_items, n = law.n_items, law.n_calibration
    shares = drawn.tested * n_items / (n_items - n), (1 - drawn.tested) * n_items / n
    return _centred(_centred(as_tested) * shares[0] + as_calibration * shares[1])


def drawn_law(item_rank: IntArray, masks: BoolArray, k: int) -> DrawnLaw:
    """Return the DrawnLaw of drawn splits, masks (split, item), with the threshold at the k-th calibration score."""
    by_rank = np.argsort(item_rank)
    counts = np.zeros(item_rank.size + 2)
    for calibrates in masks:
        ranks = np.flatnonzero(calibrates[by_rank])
        counts[ranks[k - 1] if k <= ranks.size else item_rank.size] += 1
    return DrawnLaw(1 - masks.mean(axis=0), counts[::-1].cumsum()[::-1] / len(masks))


def threshold_pull(law: RankLaw, item_rank: IntArray, jumps: FloatArray) -> FloatArray:
    """Return (statistic, item) minus the derivative of the mean in an item's weight among the calibration scores, up to a constant.

    jumps : (statistic, p) the change of the sum over all items when the threshold moves from rank p to p + 1. More weight on an item
            ranked at or below p makes that move less likely.
    """
    later_jumps = np.zeros((law.weights.size + 1, len(jumps)))  # statistics beside each other, since items are looked up here
    np.cumsum((law.weights * jumps).T[::-1], axis=0, out=later_jumps[-2::-1])
    return later_jumps.take(item_rank - law.first, axis=0, mode="clip").T


def _centred(values: FloatArray) -> FloatArray:
    """Subtract the mean over items from the values, in place."""
    values -= values.mean(axis=1, keepdims=True)
    return values
