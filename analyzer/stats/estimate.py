"""An estimate: a value with the influence of each item on it, from which its interval follows.

The variance of an estimate is the sum of squared influences over N squared (the infinitesimal jackknife, Efron 1982). For two runs over
the same items, the influence of a difference is the difference of influences, so that comparisons are paired by items.
"""

import math
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
            return self.clusters.covariance(self.influence, other.influence)
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
        estimate = mean(self.influence[chosen] + self.value, share=self.share)
        if self.clusters:
            estimate = replace(estimate, clusters=clusters_of(self.clusters.code[chosen], self.clusters.share.size))
        unseen = self.unseen * chosen.size / max(int(chosen.sum()), 1)
        return replace(estimate, unseen=unseen, least=self.least, most=self.most, skewed=self.skewed)

    def interval(self, level: float = LEVEL) -> Interval:
        """Return the interval, by default 95 %: Student's t for a mean, Hall's for a skewed one, Wilson's for a share (effective items)."""
        return self._usual if level == LEVEL else self._interval(level)

    @cached_property
    def _usual(self) -> Interval:
        return self._interval(LEVEL)  # metrics and changes of a run are in the records of every scorer and alpha

    def _interval(self, level: float) -> Interval:
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
        scaled = units / spread
        bend = float(np.mean(scaled * scaled * scaled)) / (3 * math.sqrt(units.size))  # a power of 3 takes 50 times as long
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


def mean(
    values: AnyArray, clusters: Clusters | None = None, *, share: bool = False, least: float = -math.inf, most: float = math.inf
) -> Estimate:
    """Return the estimate of a plain mean of (item,) values, none of which can be below `least` or above `most`; NaN without items."""
    if values.size == 0:
        return Estimate(math.nan, np.empty(0), share)
    value = float(np.add.reduce(values, dtype=np.float64)) / values.size  # `values.mean()`, in half of its time
    return Estimate(value, values - value, share, least=least, most=most, clusters=clusters)


@dataclass(frozen=True)
class _Turned:
    """The interval of origin - figure."""

    of: Inverted
    origin: float

    def interval(self, level: float) -> Interval:
        low, high = self.of.interval(level)
        return Interval(self.origin - high, self.origin - low)


@lru_cache(maxsize=64)
def student(freedom: float, level: float = LEVEL) -> float:
    """Return the two-sided quantile of Student's t, by default 95 %."""
    return float(stdtrit(freedom, 0.5 + level / 2))
