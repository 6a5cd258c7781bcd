"""Estimates made of several over the same items: ratios, differences, averages, quotients, and their covariances.

The influences carry the dependence between estimates. Where an interval was not computed from influences, that of the result is combined
from the limits of the others (MOVER).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.stats.arrays import AnyArray, FloatArray
from analyzer.stats.clusters import Clusters
from analyzer.stats.estimate import NOTHING, Estimate, Interval, student


def ratio(over: Estimate, under: Estimate, member: AnyArray) -> Estimate:
    """Return over / under of two estimates over the same items, by the delta method; NOTHING if `under` is 0.

    over  : the mean over all items of a figure that is 0 outside a group.
    under : the share of items that belong to the group, so that the ratio rests on that share of the items alone.
    member : (item,) whether each item belongs to the group, or how probably.
    """
    if not under.value > 0:
        return NOTHING
    value = over.value / under.value
    influence = (over.influence - value * under.influence) / under.value
    items = round(under.value * under.items, 6)  # a count, up to rounding
    clusters = over.clusters.among(member) if over.clusters else None
    return Estimate(value, influence, over.share, items=items, least=over.least, most=over.most, clusters=clusters)


def difference(after: Estimate, before: Estimate) -> Estimate:
    """Return after - before of two estimates over the same items.

    Two runs that agree on all N items may still differ on the next one, so a change in one item (or cluster) is always added as `unseen`
    error; without it, 50 items without a flip would prove that nothing changed (the pseudo-count of Agresti & Min 2005, for paired shares).
    """
    items = min(after.items, before.items)
    least, most, unseen = after.least - before.most, after.most - before.least, 1 / max(min(after.units, before.units), 1)
    inverted = _Difference(after, before, unseen) if after.inverted or before.inverted else None
    clusters = _common([after, before])
    return Estimate(after.value - before.value, after.influence - before.influence, False, unseen, items, least, most, inverted, clusters)


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Return the mean of estimates over the same items; their influences carry the dependence between them."""
    count = len(estimates)
    if count == 1:
        return estimates[0]
    value = sum(e.value for e in estimates) / count
    influence = np.sum([e.influence for e in estimates], axis=0) / count
    share, unseen = all(e.share for e in estimates), sum(e.unseen for e in estimates) / count
    least, most = sum(e.least for e in estimates) / count, sum(e.most for e in estimates) / count
    inverted = _Mean(tuple(estimates)) if any(e.inverted for e in estimates) else None
    items, skewed = min(e.items for e in estimates), all(e.skewed for e in estimates)
    return Estimate(value, influence, share, unseen, items, least, most, inverted, _common(estimates), skewed)


def covariances(estimates: Sequence[Estimate]) -> FloatArray:
    """Return the (estimate, estimate) covariance of estimates over the same items."""
    clusters, influence = _common(estimates), np.stack([estimate.influence for estimate in estimates])
    if clusters:
        return clusters.covariances(influence)
    n_items = influence.shape[1]
    return np.asarray(influence @ influence.T / (n_items * (n_items - 1)))


@dataclass(frozen=True)
class Quotient:
    """The interval of times * over / under, where `under` is above 0, from the interval of each (MOVER: Donner & Zou 2012, SMMR 21).

    Their correlation is that of the influences; if one has no influence, the worst case is assumed, errors in opposite directions.
    """

    over: Estimate
    under: Estimate
    times: float

    def interval(self, level: float) -> Interval:
        """Return the interval of this level; up to infinity where `under` may be 0."""
        low, high = self.over.interval(level)
        least, most = self.under.interval(level)
        if math.isnan(most):
            return Interval(math.nan, math.nan)
        over, under, alike = self.over.value, self.under.value, correlation(self.over, self.under)
        alike = -1.0 if math.isnan(alike) else alike
        down = _together((over - low) / under, over * (1 / under - 1 / most), -alike)
        up = _together((high - over) / under, over * (1 / least - 1 / under), -alike) if least > 0 else math.inf
        return Interval(self.times * (over / under - down), self.times * (over / under + up))


@dataclass(frozen=True)
class _Mean:
    """The interval of a mean of figures of the same items, as if all errors were perfectly correlated, because correlations are unknown."""

    of: tuple[Estimate, ...]

    def interval(self, level: float) -> Interval:
        ends = [one.interval(level) for one in self.of]
        return Interval(sum(end.low for end in ends) / len(ends), sum(end.high for end in ends) / len(ends))


@dataclass(frozen=True)
class _Difference:
    """The interval of after - before over the same items from the interval of each; their dependence is that of the influences.

    Distances from value to limits replace standard errors (MOVER: Zou & Donner 2008, Statistics in Medicine 27). The part of the error that
    both share cancels, the rest is independent.
    """

    after: Estimate
    before: Estimate
    unseen: float

    def interval(self, level: float) -> Interval:
        after, before = self.after, self.before
        alike = correlation(after, before)
        alike = 0.0 if math.isnan(alike) else alike
        down, up = _distances(after, level)
        there_down, there_up = _distances(before, level)
        with_down, with_up = (there_down, there_up) if alike > 0 else (there_up, there_down)
        together = down - alike * with_down, up - alike * with_up
        apart = math.sqrt(max(1 - alike * alike, 0.0))
        unseen = student(min(after.freedom, before.freedom), level) * self.unseen
        low = math.hypot(max(together[0], -together[1], 0.0), apart * there_up, unseen)
        high = math.hypot(max(together[1], -together[0], 0.0), apart * there_down, unseen)
        change = after.value - before.value
        return Interval(change - low, change + high)


def _common(estimates: Sequence[Estimate]) -> Clusters | None:
    """The clusters of estimates over the same items; of several shares, which differ by left-out items only, those of the fewest units."""
    clusterings = [e.clusters for e in estimates]
    known = [clusters for clusters in clusterings if clusters]
    if len(known) < len(clusterings) or any(not np.array_equal(known[0].code, clusters.code) for clusters in known[1:]):
        if known:
            raise ValueError("estimates over the same items have different clusters, so their errors cannot be combined")
        return None
    return min(known, key=lambda clusters: clusters.units)


def correlation(one: Estimate, other: Estimate) -> float:
    """Return the correlation of the errors of two estimates over the same items; NaN if one of them has none."""
    if one.influence.size != other.influence.size:
        return math.nan
    first, second = (e.clusters.sums(e.influence) if e.clusters else e.influence for e in (one, other))
    scale = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / scale if scale > 0 else math.nan


def _together(one: float, other: float, alike: float) -> float:
    return math.sqrt(max(one * one + other * other + 2 * alike * one * other, 0.0))


def _distances(estimate: Estimate, level: float) -> tuple[float, float]:
    low, high = estimate.interval(level)
    return estimate.value - low, high - estimate.value
