"""An interval of set size where the threshold is what is uncertain: the score has an atom or a gap there, or few items lie above it.

The influence of items is a derivative. Where the mean set size is not close to a straight line over the levels that the threshold may have,
it says nothing: at an atom it is 0 on either side and the size jumps between (intervals then held the truth in 43 to 75 %).

So the question is turned round: which populations could have given these items? Tilt the items' weights until the share of them beyond
a boundary is the least or the most that a binomial count allows, and take the set size that such a population has, with the whole law
of its threshold: the k-th of n uniform levels is Beta(k, n + 1 - k). What the tilt leaves of the items' influence is added in
quadrature. Boundaries lie across the law of the threshold's level, since an atom may begin beside its centre; the widest counts.
"""

import math

import numpy as np
from scipy.special import betainc, betaincinv

from analyzer.conformal.ranks import Ranks
from analyzer.conformal.split_law import RankLaw
from analyzer.stats.arrays import BoolArray, FloatArray
from analyzer.stats.estimate import LEVEL, Estimate, Interval, student

BOUNDARIES = np.array([0.02, 0.15, 0.35, 0.5, 0.65, 0.85, 0.98])  # quantiles of the threshold's level
FEWEST_BEYOND = 5  # calibration items expected above the threshold; with 1 to 3 the intervals hold the truth in 81 to 96 % only
REACH, BENT, TIED = 2.0, 0.5, 0.005
ITEM = 0.5  # half an item's option: set size moves in steps of 1 / N, and no sample shows less


def bends_at_threshold(law: RankLaw, ranks: Ranks) -> bool:
    """Return whether the mean set size is far from a straight line over the levels, two standard errors either way, that a threshold has.

    Also where other scores equal the threshold's, or fewer than ten calibration items are expected above it.
    """
    n_items, n = law.n_items, law.n_calibration
    if law.k > n or n + 1 - law.k < 2 * FEWEST_BEYOND:
        return True
    centre = law.k / (n + 1)
    reach = REACH * math.sqrt(centre * (1 - centre) * (1 / n_items + 1 / n))
    places = np.clip(((centre + reach * np.array([-1.0, 0.0, 1.0])) * n_items).astype(np.int64), 0, n_items - 1)
    if np.ptp(ranks.first[places]) < np.ptp(places) and (places - ranks.first[places]).max() > TIED * n_items:
        return True
    below, at, above = (float((ranks.option <= place).sum()) for place in places)
    return abs(above - 2 * at + below) > BENT * max(above - below, 1.0)


def inverted_interval(law: RankLaw, ranks: Ranks, influence: FloatArray, level: float = LEVEL) -> Interval | None:
    """Return the interval of the mean set size over all splits; None where fewer than five items are expected above the threshold.

    influence : (item,) of the set size, mean zero.
    """
    n_items, tail = law.n_items, (1 - level) / 2
    if n_items < 3 or law.k > law.n_calibration or law.n_calibration + 1 - law.k < FEWEST_BEYOND:
        return None
    middle = _size(law, ranks, np.ones(n_items))
    low, high = 0.0, 0.0
    for boundary in _boundaries(law, ranks):
        beyond = ranks.item_rank >= boundary
        count = int(beyond.sum())
        shares = betaincinv(count + 0.5, n_items - count + 0.5, [tail, 1 - tail])
        sizes = [middle, *(_size(law, ranks, _tilted(beyond, share)) for share in shares)]
        rest = student(n_items - 2, level) * math.hypot(_rest(influence, beyond), ITEM / n_items)
        low, high = max(low, math.hypot(middle - min(sizes), rest)), max(high, math.hypot(max(sizes) - middle, rest))
    return Interval(max(middle - low, 0.0), min(middle + high, float((ranks.option <= n_items).sum() / ranks.option.shape[1])))


def difference_interval(after: Estimate, of_after: Interval, before: Estimate, of_before: Interval) -> Interval:
    """Return the interval of after - before over the same items from the interval of each; their dependence is that of the influences.

    Distances to limits take the place of standard errors (MOVER: Zou & Donner 2008, Statistics in Medicine 27). What the two share moves
    both to the same side, the rest is independent.
    """
    scale = math.sqrt(float(after.influence @ after.influence) * float(before.influence @ before.influence))
    alike = float(after.influence @ before.influence) / scale if scale > 0 else 0.0
    down, up = after.value - of_after.low, of_after.high - after.value
    there_down, there_up = before.value - of_before.low, of_before.high - before.value
    with_down, with_up = (there_down, there_up) if alike > 0 else (there_up, there_down)
    together = down - alike * with_down, up - alike * with_up
    apart = math.sqrt(max(1 - alike * alike, 0.0))
    low = math.hypot(max(together[0], -together[1], 0.0), apart * there_up)
    high = math.hypot(max(together[1], -together[0], 0.0), apart * there_down)
    change = after.value - before.value
    return Interval(change - low, change + high)


def _boundaries(law: RankLaw, ranks: Ranks) -> list[int]:
    """Ranks that part the items, each the first of those whose scores tie with it; 0 parts nothing."""
    levels = betaincinv(law.k, law.n_calibration + 1 - law.k, BOUNDARIES)
    places = np.minimum((levels * law.n_items).astype(np.int64), law.n_items - 1)
    return sorted({int(first) for first in ranks.first[places] if first > 0})


def _tilted(beyond: BoolArray, share: float) -> FloatArray:
    """Weights, (item,) of mean 1, under which so large a share of the items lies beyond the boundary."""
    now = float(beyond.mean())
    return np.where(beyond, share / now, (1 - share) / (1 - now))


def _size(law: RankLaw, ranks: Ranks, weights: FloatArray) -> float:
    """Mean set size of a population in which each item has its weight, for calibration items drawn from it."""
    n_items = law.n_items
    entering = sum(np.bincount(row, weights, n_items + 2)[:n_items] for row in ranks.option)
    by_rank = np.empty(n_items)
    by_rank[ranks.item_rank] = weights
    level = np.minimum(by_rank.cumsum() / n_items, 1.0)
    level[-1] = 1.0
    chance = np.diff(betainc(law.k, law.n_calibration + 1 - law.k, level), prepend=0.0)
    return float(chance @ np.cumsum(entering)) / n_items


def _rest(influence: FloatArray, beyond: BoolArray) -> float:
    """Standard error of what is left of the influence beside the count of items beyond."""
    n_items = influence.size
    side = beyond - beyond.mean()
    left = influence - side * float(influence @ side) / float(side @ side)
    return math.sqrt(float(left @ left) / (n_items * (n_items - 1)))
