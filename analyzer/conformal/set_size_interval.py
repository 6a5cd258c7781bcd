"""Intervals of set sizes for an uncertain threshold: if the score has an atom or a gap there, or few items have larger scores.

The influence of items is a derivative. If the mean set size is far from a straight line over the levels that the threshold may have, the
derivative is useless: at an atom it is 0 on either side and the size jumps in between (intervals then covered the truth in 43 to 75 %).

So the interval is found by inversion: which populations could have produced these items? The items' weights are tilted until the share
beyond a boundary is the smallest or largest that a binomial count allows, and the mean set size (or share of empty sets) of such a
population is computed (`analyzer.conformal.tilted_items`). The part of the items' influence that the tilt does not explain is added in
quadrature. Several boundaries are tried across the distribution of the threshold's level, since an atom may begin beside its centre; the
widest interval is used.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from analyzer.conformal.split_law import RankLaw, SetStatistics
from analyzer.conformal.tilted_items import Populations, Threshold, threshold_design_effect
from analyzer.stats.arrays import BoolArray, FloatArray
from analyzer.stats.clusters import Clusters
from analyzer.stats.estimate import Estimate, Interval, student

FEWEST_BEYOND = 5  # calibration items expected above the threshold; with 1 to 3 the intervals contain the truth in only 81 to 96 %
REACH, BENT, TIED = 2.0, 0.5, 0.005
FEW_ITEMS = 600  # up to this many items the linear approximation is not used: at 200, its intervals contain the truth in 87 to 95 %
ITEM = 1.4  # options, added in quadrature, since a rare option may not be seen at all; the root of z^2 / 2, as in Wilson's interval


def bends_at_threshold(threshold: Threshold, clusters: Clusters | None = None) -> bool:
    """Return whether the mean set size is far from a straight line over the levels within two standard errors of the threshold's.

    Also true if other scores equal the threshold, if there are few items or clusters, or if fewer than ten calibration items are expected
    above it.
    """
    law = threshold.law
    n_items, n = law.n_items, law.n_calibration
    n_units = clusters.count if clusters else n_items
    alike = threshold_design_effect(threshold, clusters)
    if n_units <= FEW_ITEMS or law.k > n or n + 1 - law.k < 2 * FEWEST_BEYOND * alike:
        return True
    return jumps_at_threshold(threshold, alike)


def jumps_at_threshold(threshold: Threshold, alike: float = 1.0) -> bool:
    """Return whether other scores equal the threshold's, or the mean set size is far from a straight line near it: an atom or a gap.

    alike : design effect of dependent items, by which the threshold is less certain.
    """
    law, ranks = threshold.law, threshold.ranks
    n_items, n = law.n_items, law.n_calibration
    centre = law.k / (n + 1)
    reach = REACH * math.sqrt(alike * centre * (1 - centre) * (1 / n_items + 1 / n))
    positions = [min(max(int((centre + side * reach) * n_items), 0), n_items - 1) for side in (-1, 0, 1)]
    firsts, in_sets = ranks.first.take(positions).tolist(), ranks.n_in_sets.take(positions).tolist()
    tied = max(position - first for position, first in zip(positions, firsts, strict=True))
    if firsts[2] - firsts[0] < positions[2] - positions[0] and tied > TIED * n_items:
        return True
    below, at, above = in_sets
    return bool(abs(above - 2 * at + below) > BENT * max(above - below, 1.0))


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
    populations = Populations(threshold, statistics.table.rows, statistics.steps, statistics.start, member, one.clusters)

    def inverted(name: str, estimate: Estimate) -> SetInversion | None:
        if not bends or not math.isfinite(estimate.value):
            return None
        statistic = statistics.names.index(name)
        error = 0.0 if split_errors is None else float(split_errors[statistic])
        return SetInversion(populations, statistic, estimate.value, estimate.influence, error, unseen)

    return {
        name: estimate if name == "coverage" else replace(estimate, unseen=unseen, inverted=inverted(name, estimate))
        for name, estimate in estimates.items()
    }


@dataclass(frozen=True, eq=False)
class SetInversion:
    """The data for the inverted interval of one statistic of sets.

    populations : those that could have produced these items; all statistics of the items share them.
    statistic   : which of their statistics this is.
    value, influence : the estimated statistic, and the influence of each item, (item,), mean zero.
    split_error : standard error of a mean over drawn splits; 0 for all splits.
    unseen      : what an item, or cluster, that was not seen may change.
    """

    populations: Populations
    statistic: int
    value: float
    influence: FloatArray
    split_error: float = 0.0
    unseen: float = 0.0
    _intervals: dict[float, Interval] = field(default_factory=dict)  # by level: a figure, its change and its test need the same ones

    def interval(self, level: float) -> Interval:
        """Return the interval; NaN if fewer than five calibration items are expected above the threshold."""
        if level not in self._intervals:
            self._intervals[level] = self._interval(level)
        return self._intervals[level]

    def _interval(self, level: float) -> Interval:
        threshold, clusters = self.populations.threshold, self.populations.clusters
        if no_interval(threshold.law, threshold_design_effect(threshold, clusters)):
            return Interval(math.nan, math.nan)
        t = student(max((clusters.units if clusters else threshold.law.n_items) - 2, 1), level)
        if not self.populations.boundaries:  # the threshold stays in an atom that no score is below, so that the set size cannot jump
            error = t * math.hypot(_error(self.influence, clusters), self.unseen, self.split_error)
            return Interval(self.value - error, self.value + error)
        means = self.populations.tilted(level)
        middle = float(means.middle[self.statistic])
        low, high = 0.0, 0.0
        for rest, ends in zip(self._rests, means.extremes[:, :, self.statistic], strict=True):
            error = t * math.hypot(rest, self.unseen, self.split_error)
            low = max(low, math.hypot(middle - min(middle, float(ends.min())), error))
            high = max(high, math.hypot(max(middle, float(ends.max())) - middle, error))
        return Interval(self.value - low, self.value + high)

    @cached_property
    def _rests(self) -> list[float]:
        """Standard error of the part of the influence that the number of items beyond each boundary does not explain."""
        return [_rest(self.influence, beyond, self.populations.clusters) for beyond in self.populations.sides()]


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


def _rest(influence: FloatArray, beyond: BoolArray, clusters: Clusters | None) -> float:
    side = beyond - beyond.mean()
    return _error(influence - side * float(influence @ side) / float(side @ side), clusters)


def _error(influence: FloatArray, clusters: Clusters | None) -> float:
    if clusters:
        return math.sqrt(clusters.covariance(influence, influence))
    return math.sqrt(float(influence @ influence) / (influence.size * (influence.size - 1)))
