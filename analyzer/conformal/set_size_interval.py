"""Intervals of set sizes for an uncertain threshold: if the score has an atom or a gap there, or few items have larger scores.

The influence of items is a derivative. If the mean set size is far from a straight line over the levels that the threshold may have, the
derivative is useless: at an atom it is 0 on either side and the size jumps in between (intervals then covered the truth in 43 to 75 %).

So the interval is found by inversion: which populations could have produced these items? The items' weights are tilted until the share
beyond a boundary is the smallest or largest that a binomial count allows, and the mean set size (or share of empty sets) of such a
population is computed with the whole distribution of its threshold: the k-th of n uniform levels is Beta(k, n + 1 - k). The part of the
items' influence that the tilt does not explain is added in quadrature. Several boundaries are tried across the distribution of the
threshold's level, since an atom may begin beside its centre; the widest interval is used.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import betainc, betaincinv

from analyzer.conformal.ranks import Ranks
from analyzer.conformal.split_law import RankLaw, SetStatistics
from analyzer.stats.arrays import BoolArray, FloatArray, IntArray
from analyzer.stats.clusters import Clusters
from analyzer.stats.estimate import Estimate, Interval, student

BOUNDARIES = np.array([0.02, 0.15, 0.35, 0.5, 0.65, 0.85, 0.98])  # quantiles of the threshold's level
FEWEST_BEYOND = 5  # calibration items expected above the threshold; with 1 to 3 the intervals contain the truth in only 81 to 96 %
REACH, BENT, TIED = 2.0, 0.5, 0.005
FEW_ITEMS = 600  # up to this many items the linear approximation is not used: at 200, its intervals contain the truth in 87 to 95 %
ITEM = 1.4  # options, added in quadrature, since a rare option may not be seen at all; the root of z^2 / 2, as in Wilson's interval
RECENT = 256  # intervals cached; a figure, its change and its test need the same one


class Threshold(NamedTuple):
    """The distribution of the threshold's rank, and the ranks of the scores."""

    law: RankLaw
    ranks: Ranks


def bends_at_threshold(threshold: Threshold, clusters: Clusters | None = None) -> bool:
    """Return whether the mean set size is far from a straight line over the levels within two standard errors of the threshold's.

    Also true if other scores equal the threshold, if there are few items or clusters, or if fewer than ten calibration items are expected
    above it.
    """
    law = threshold.law
    n_items, n = law.n_items, law.n_calibration
    n_units = np.count_nonzero(clusters.share) if clusters else n_items
    alike = threshold_design_effect(threshold, clusters)
    if n_units <= FEW_ITEMS or law.k > n or n + 1 - law.k < 2 * FEWEST_BEYOND * alike:
        return True
    return jumps_at_threshold(threshold, alike)


def threshold_design_effect(threshold: Threshold, clusters: Clusters | None) -> float:
    """Return how many times as large the variance of the number of items above the threshold is as for independent items; at least 1."""
    law, ranks = threshold
    beyond = ranks.item_rank >= round(law.k / (law.n_calibration + 1) * law.n_items)
    return _design_effect(clusters, beyond) if 0 < beyond.sum() < beyond.size else 1.0


def jumps_at_threshold(threshold: Threshold, alike: float = 1.0) -> bool:
    """Return whether other scores equal the threshold's, or the mean set size is far from a straight line near it: an atom or a gap.

    alike : design effect of dependent items, by which the threshold is less certain.
    """
    law, ranks = threshold
    n_items, n = law.n_items, law.n_calibration
    centre = law.k / (n + 1)
    reach = REACH * math.sqrt(alike * centre * (1 - centre) * (1 / n_items + 1 / n))
    places = np.clip(((centre + reach * np.array([-1.0, 0.0, 1.0])) * n_items).astype(np.int64), 0, n_items - 1)
    if np.ptp(ranks.first[places]) < np.ptp(places) and (places - ranks.first[places]).max() > TIED * n_items:
        return True
    below, at, above = (float((ranks.option <= place).sum()) for place in places)
    return abs(above - 2 * at + below) > BENT * max(above - below, 1.0)


def inverted_where_bent(
    estimates: Mapping[str, Estimate],
    threshold: Threshold,
    statistics: SetStatistics,
    *,
    split_errors: FloatArray | None = None,
    member: BoolArray | None = None,
) -> dict[str, Estimate]:
    """Return the estimates of the statistics; all but coverage get an inverted interval if the set size bends at the threshold.

    split_errors : (statistic,) standard error of a mean over drawn splits; None over all splits.
    member       : (item,) bool, the items over which the means are taken; None for all.
    """
    one = next(iter(estimates.values()))
    bends = bends_at_threshold(threshold, one.clusters)
    unseen = ITEM / threshold.law.n_items * (one.items / one.units if one.clusters else 1.0)
    found = {name: own if name == "coverage" else replace(own, unseen=unseen) for name, own in estimates.items()}
    if not bends:
        return found
    for place, name in enumerate(statistics.names):
        if name == "coverage" or not math.isfinite(found[name].value):
            continue
        own, error = found[name], 0.0 if split_errors is None else float(split_errors[place])
        rows = statistics.table.rows, statistics.steps[place], float(statistics.start[place])
        found[name] = replace(own, inverted=SetInversion(threshold, *rows, own.value, own.influence, error, member, own.clusters, unseen))
    return found


@dataclass(frozen=True, eq=False)
class SetInversion:
    """The data for the inverted interval of one statistic of sets, from the populations that could have produced these items.

    rows, steps : (row, item) hits and (row,) what each adds to an item's value, as in `SetStatistics`.
    start      : value of an item without any hit.
    value, influence : the estimated statistic, and the influence of each item, (item,), mean zero.
    split_error : standard error of a mean over drawn splits; 0 for all splits.
    member     : (item,) bool, the items over which the mean is taken; None for all.
    clusters   : of dependent items; the number of items beyond a boundary then counts as many independent ones as its variance says.
    unseen     : what an item, or cluster, that was not seen may change.
    """

    threshold: Threshold
    rows: IntArray
    steps: FloatArray
    start: float
    value: float
    influence: FloatArray
    split_error: float = 0.0
    member: BoolArray | None = None
    clusters: Clusters | None = None
    unseen: float = 0.0

    def interval(self, level: float) -> Interval:
        """Return the interval; NaN if fewer than five calibration items are expected above the threshold."""
        return _interval(self, level)


def no_interval(law: RankLaw, alike: float = 1.0) -> str | None:
    """Return why there is no interval of set size, or None. alike : design effect of dependent items."""
    expected = max(law.n_calibration + 1 - law.k, 0)
    if expected >= FEWEST_BEYOND * alike and law.n_items >= 3:
        return None
    worth = f", worth {expected / alike:.1f} independent ones" if alike > 1 else ""
    return (
        f"set size has no interval: of {law.n_calibration} calibration items {expected} {'is' if expected == 1 else 'are'} expected "
        f"above the threshold{worth}, {FEWEST_BEYOND} are needed"
    )


@lru_cache(maxsize=RECENT)
def _interval(of: SetInversion, level: float) -> Interval:
    law, ranks = of.threshold
    n_items, tail = law.n_items, (1 - level) / 2
    units = of.clusters.units if of.clusters else n_items
    around = threshold_design_effect(of.threshold, of.clusters)
    if no_interval(law, around):
        return Interval(math.nan, math.nan)
    middle = _mean(of, np.ones(n_items))
    low, high = 0.0, 0.0
    for boundary in _boundaries(of.threshold, around):
        beyond = ranks.item_rank >= boundary
        alike = _design_effect(of.clusters, beyond)
        count, n_counted = beyond.sum() / alike, n_items / alike
        shares = betaincinv(count + 0.5, n_counted - count + 0.5, [tail, 1 - tail])
        means = [middle, *(_mean(of, _tilted(beyond, share)) for share in shares)]
        rest = student(max(units - 2, 1), level) * math.hypot(_rest(of, beyond), of.unseen, of.split_error)
        low, high = max(low, math.hypot(middle - min(means), rest)), max(high, math.hypot(max(means) - middle, rest))
    return Interval(of.value - low, of.value + high)


def _boundaries(threshold: Threshold, alike: float) -> list[int]:
    """Return ranks that divide the items into two parts: of tied ranks the first, without 0, below which there are no items."""
    law, ranks = threshold
    levels = betaincinv(law.k / alike, (law.n_calibration + 1 - law.k) / alike, BOUNDARIES)
    places = np.minimum((levels * law.n_items).astype(np.int64), law.n_items - 1)
    return sorted({int(first) for first in ranks.first[places] if first > 0})


def _tilted(beyond: BoolArray, share: float) -> FloatArray:
    """Weights, (item,) with mean 1, under which this share of the items is beyond the boundary."""
    now = float(beyond.mean())
    return np.where(beyond, share / now, (1 - share) / (1 - now))


def _mean(of: SetInversion, weights: FloatArray) -> float:
    """Mean of the statistic in a population with these weights of items, from which the calibration items are drawn as well."""
    law, ranks = of.threshold
    n_items = law.n_items
    own = weights if of.member is None else weights * of.member
    entering = sum(step * np.bincount(row, own, n_items + 2)[:n_items] for row, step in zip(of.rows, of.steps, strict=True) if step)
    by_rank = np.empty(n_items)
    by_rank[ranks.item_rank] = weights
    level = np.minimum(by_rank.cumsum() / n_items, 1.0)
    level[-1] = 1.0
    chance = np.diff(betainc(law.k, law.n_calibration + 1 - law.k, level), prepend=0.0)
    return of.start + float(chance @ np.cumsum(entering)) / float(own.sum())


def _design_effect(clusters: Clusters | None, beyond: BoolArray) -> float:
    """How many times as large the variance of the number of items beyond the boundary is as for independent items; at least 1."""
    if not clusters:
        return 1.0
    side = beyond - beyond.mean()
    return max(float(clusters.covariances(side[None])[0, 0]) * beyond.size**2 / float(side @ side), 1.0)


def _rest(of: SetInversion, beyond: BoolArray) -> float:
    """Standard error of the part of the influence that the number of items beyond the boundary does not explain."""
    influence, n_items = of.influence, of.influence.size
    side = beyond - beyond.mean()
    left = influence - side * float(influence @ side) / float(side @ side)
    if of.clusters:
        return math.sqrt(float(of.clusters.covariances(left[None])[0, 0]))
    return math.sqrt(float(left @ left) / (n_items * (n_items - 1)))
