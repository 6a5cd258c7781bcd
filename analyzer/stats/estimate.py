"""An estimate: a value with the influence of each item on it, from which intervals, differences and means follow.

The variance of an estimate is the sum of squared influences over N squared (the infinitesimal jackknife, Efron 1982). For two runs over
the same items, the influence of a difference is the difference of influences, so that comparisons are paired by items.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from scipy.special import stdtrit

from analyzer.stats.arrays import AnyArray, BoolArray, FloatArray
from analyzer.stats.clusters import Clusters, clusters_of

LEVEL = 0.95
SYMMETRIC = 1e-9  # skewness over three times the root of the number of items, below which nothing is corrected


class Interval(NamedTuple):
    """Lower and upper end."""

    low: float
    high: float


class Inverted(Protocol):
    """An interval computed in another way than from influences, for estimates where these are wrong; NaN if there is no interval."""

    def interval(self, level: float) -> Interval:
        """Return the interval of this level."""
        ...


@dataclass(frozen=True)
class Estimate:
    """A figure about a model, estimated from items.

    value     : the figure; NaN if there are no items to estimate it from.
    influence : (item,) influence of each item, mean zero.
    share     : True for a share in [0, 1], whose interval stays within these limits (Wilson's form).
    unseen    : error that the observed items cannot show, added in quadrature, such as that of a change that happens to none of them.
    items     : number of items that the figure rests on: the members of a group whose influences are over all items, the Kish number of
                weighted items; NaN, the default, means one per influence.
    least, most : limits of the figure by definition, such as 0 for a divergence; intervals end there.
    inverted  : source of the interval if it is not computed from the influences; None nearly always.
    clusters  : the clusters that dependent items form, which are then the independent units; None if every item is one.
    skewed    : True for a plain mean of values of which few are far larger than the rest, such as a divergence; its interval is then
                corrected for their skewness.
    """

    value: float
    influence: FloatArray
    share: bool = False
    unseen: float = 0.0
    items: float = math.nan
    least: float = -math.inf
    most: float = math.inf
    inverted: Inverted | None = None
    clusters: Clusters | None = None
    skewed: bool = False

    def __post_init__(self) -> None:
        if math.isnan(self.items):
            object.__setattr__(self, "items", float(self.influence.size))
        if self.share:
            object.__setattr__(self, "least", max(self.least, 0.0))
            object.__setattr__(self, "most", min(self.most, 1.0))

    @property
    def units(self) -> float:
        """Number of independent units that the figure rests on: its items, or their clusters."""
        return self.clusters.units if self.clusters else self.items

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the error: one less than the number of units, or of influences if these belong to groups of items."""
        return min(self.units, self.influence.size) - 1

    @cached_property
    def error(self) -> float:
        """Standard error over items; for an inverted interval, the one that corresponds to its width."""
        if not self.freedom >= 1:
            return math.nan
        if self.inverted:
            low, high = self.inverted.interval(LEVEL)
            return (high - low) / (2 * student(self.freedom))
        return math.hypot(math.sqrt(self.covariance(self)), self.unseen)

    def covariance(self, other: "Estimate") -> float:
        """Return the covariance with an estimate over the same items, as far as the observed items show it."""
        if self.clusters:
            return float(self.clusters.covariances(np.stack([self.influence, other.influence]))[0, 1])
        size, freedom = self.influence.size, min(self.freedom, other.freedom)
        return float(self.influence @ other.influence) / (size * size * freedom / (freedom + 1))

    def __neg__(self) -> "Estimate":
        """The figure with the opposite sign; it is no longer a share."""
        turned = replace(self, value=-self.value, influence=-self.influence, share=False, least=-self.most, most=-self.least)
        return replace(turned, inverted=_Turned(self.inverted, 0.0)) if self.inverted else turned

    def complement(self) -> "Estimate":
        """Return the complementary share, 1 - value."""
        rest = replace(self, value=1 - self.value, influence=-self.influence, least=1 - self.most, most=1 - self.least)
        return replace(rest, inverted=_Turned(self.inverted, 1.0)) if self.inverted else rest

    def among(self, chosen: BoolArray) -> "Estimate":
        """Return the mean over the chosen items only, (item,) bool. Valid for a plain mean, from which each item's value is known."""
        part = mean(self.influence[chosen] + self.value, share=self.share)
        if self.clusters:
            part = replace(part, clusters=clusters_of(self.clusters.code[chosen], self.clusters.share.size))
        unseen = self.unseen * chosen.size / max(int(chosen.sum()), 1)
        return replace(part, unseen=unseen, least=self.least, most=self.most, skewed=self.skewed)

    def interval(self, level: float = LEVEL) -> Interval:
        """Return the interval, by default 95 %: Student's t for a mean, Hall's for a skewed one, Wilson's for a share (effective items)."""
        if not self.freedom >= 1:
            return Interval(math.nan, math.nan)
        if self.inverted:
            return self._within(*self.inverted.interval(level))
        t = student(self.freedom, level)
        if self.share:
            return self._wilson(t)
        down, up = self._skewness_corrected(t) if self.skewed else (t, t)
        return self._within(self.value - down * self.error, self.value + up * self.error)

    def _skewness_corrected(self, t: float) -> tuple[float, float]:
        """Distances from the value to both limits in standard errors, where -t and t are those without skewness.

        The studentized mean is transformed so that its skewness vanishes (P. Hall 1992, JRSS B 54, the monotone cubic).
        """
        units = self.clusters.sums(self.influence)[self.clusters.share > 0] if self.clusters else self.influence
        spread = math.sqrt(float(units @ units) / units.size)
        if spread == 0:
            return t, t
        bend = float(np.mean((units / spread) ** 3)) / (3 * math.sqrt(units.size))
        if abs(bend) < SYMMETRIC:
            return t, t
        down, up = (math.cbrt(1 + 3 * bend * (end - bend / 2)) / bend - 1 / bend for end in (t, -t))
        return down, -up

    def _within(self, low: float, high: float) -> Interval:
        return Interval(max(low, self.least), min(high, self.most))  # NaN stays NaN

    def _wilson(self, t: float) -> Interval:
        p, units = min(max(self.value, 0.0), 1.0), self.units  # a weighted sum may miss an end by rounding
        unseen = min(p, 1 - p) * units < 1  # less than one unit differs: its variance cannot be read off the items
        if self.error == 0 and not unseen:
            return Interval(p, p)  # a share that does not depend on the items: coverage over all splits of scores without ties
        per_item = 1 / units if unseen else self.error**2 / (p * (1 - p))
        shrink = 1 + t * t * per_item
        middle = (p + t * t * per_item / 2) / shrink
        half = t / shrink * math.sqrt(p * (1 - p) * per_item + (t * per_item / 2) ** 2)
        return self._within(middle - half, middle + half)


NOTHING = Estimate(math.nan, np.empty(0))


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


def mean(
    values: AnyArray, clusters: Clusters | None = None, *, share: bool = False, least: float = -math.inf, most: float = math.inf
) -> Estimate:
    """Return the estimate of a plain mean of (item,) values, none of which can be below `least` or above `most`; NaN without items."""
    if values.size == 0:
        return Estimate(math.nan, np.empty(0), share)
    value = float(values.mean(dtype=np.float64))
    return Estimate(value, values - value, share, least=least, most=most, clusters=clusters)


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
class _Turned:
    """The interval of origin - figure."""

    of: Inverted
    origin: float

    def interval(self, level: float) -> Interval:
        low, high = self.of.interval(level)
        return Interval(self.origin - high, self.origin - low)


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
    found = [e.clusters for e in estimates]
    known = [clusters for clusters in found if clusters]
    if len(known) < len(found) or any(not np.array_equal(known[0].code, clusters.code) for clusters in known[1:]):
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


@lru_cache(maxsize=64)
def student(freedom: float, level: float = LEVEL) -> float:
    """Return the two-sided quantile of Student's t, by default 95 %."""
    return float(stdtrit(freedom, 0.5 + level / 2))
