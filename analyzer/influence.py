"""What each item contributes to an estimate: the way from one sample of items to an interval, and to paired differences.

Two effects of an item are added: its own set when it is tested, and the pull of its answer score on the threshold when it
calibrates. Smoothed by the law of the threshold's rank, this is the derivative of the exact split law in the item's weight; the
derivation is in exact_law.md.
"""

import numpy as np

from analyzer.arrays import FloatArray, IntArray
from analyzer.law import RankLaw, Statistic


def split_influence(law: RankLaw, own: IntArray, statistic: Statistic, tested: FloatArray | None = None) -> FloatArray:
    """Return (item,) influence, mean zero, of each item on a statistic of the test items.

    own    : (item,) rank of each item's answer score.
    tested : (item,) share of the splits in which the item is tested; None means all splits, (N - n) / N for everyone.
    """
    steps = np.diff(np.asarray(statistic.value, dtype=np.float64))
    as_tested = steps @ law.at_least()[statistic.table.rows]
    as_calibration = -_threshold_pull(law, own, steps @ statistic.table.enter[:, law.first + 1 : law.first + 1 + law.weights.size])
    as_tested -= as_tested.mean()
    as_calibration -= as_calibration.mean()
    if tested is None:
        return np.asarray(as_tested + as_calibration)
    n_items, n = law.n_items, law.n_calibration
    both = as_tested * tested * n_items / (n_items - n) + as_calibration * (1 - tested) * n_items / n
    return np.asarray(both - both.mean())


def _threshold_pull(law: RankLaw, own: IntArray, jumps: FloatArray) -> FloatArray:
    """Return (item,) how far the mean falls when an item's answer score gains weight, up to a constant.

    jumps : value gained by all items together when the threshold moves from rank p to p + 1, for every p with weight. An item ranked
            at or below p holds that move back.
    """
    held = (law.weights * jumps)[::-1].cumsum()[::-1]
    place = np.clip(own - law.first, 0, held.size)
    return np.asarray(np.append(held, 0.0)[place])
