"""What each item contributes to an estimate: the way from one sample of items to an interval, and to paired differences.

Two effects of an item are added: its own set when it is tested, and the pull of its answer score on the threshold when it
calibrates. Smoothed by the law of the threshold's rank, this is the derivative of the exact split law in the item's weight; the
derivation is in exact_law.md.
"""

import numpy as np

from analyzer.arrays import FloatArray, IntArray
from analyzer.law import RankLaw, Statistics


def split_influence(law: RankLaw, own: IntArray, statistics: Statistics, tested: FloatArray | None = None) -> FloatArray:
    """Return (statistic, item) influence, mean zero, of each item on every statistic of the test items.

    own    : (item,) rank of each item's answer score.
    tested : (item,) share of the splits in which the item is tested; None means all splits, (N - n) / N for everyone.
    """
    as_tested = _centred(statistics.steps @ law.at_least()[statistics.table.rows])
    entering = statistics.table.enter[:, law.first + 1 : law.first + 1 + law.weights.size].astype(np.float64)
    as_calibration = _centred(-threshold_pull(law, own, statistics.steps @ entering))
    if tested is None:
        return as_tested + as_calibration
    n_items, n = law.n_items, law.n_calibration
    return _centred(as_tested * (tested * n_items / (n_items - n)) + as_calibration * ((1 - tested) * n_items / n))


def threshold_pull(law: RankLaw, own: IntArray, jumps: FloatArray) -> FloatArray:
    """Return (statistic, item) how far the mean falls when an item's answer score gains weight, up to a constant.

    jumps : (statistic, p) gained by all items together when the threshold moves from rank p to p + 1. An item ranked at or below p
            holds that move back.
    """
    held = np.zeros((len(jumps), law.weights.size + 1))
    held[:, :-1] = (law.weights * jumps)[:, ::-1].cumsum(axis=1)[:, ::-1]
    return np.asarray(held[:, np.clip(own - law.first, 0, law.weights.size)])


def _centred(values: FloatArray) -> FloatArray:
    return np.asarray(values - values.mean(axis=1, keepdims=True))
