"""An estimate: a value and what each item contributes to it, so that intervals, differences and means are one line each.

The variance of an estimate is the sum of squared influences over N squared (the infinitesimal jackknife, Efron 1982). Items asked of
two runs are the same items, so the influence of a difference is the difference of influences: pairing costs nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from analyzer.stats.arrays import AnyArray, BoolArray, FloatArray

LEVEL = 0.95


class Interval(NamedTuple):
    """Lower and upper end."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A figure about a model, estimated from items.

    value     : the figure; NaN where there is nothing to estimate it from.
    influence : (item,) mean zero.
    share     : True for a share in [0, 1], whose interval stays in there (Wilson's form).
    unseen    : error that the items at hand cannot show, added in quadrature: that of a change which happens to none of them.
    items     : how many items the figure rests on: the members of a group whose influence is laid out over all items, the Kish number
                of weighted items; NaN, the default, stands for one per influence.
    least, most : between which the figure lies by its meaning, such as 0 for a divergence; intervals end there.
    """

    value: float
    influence: FloatArray
    share: bool = False
    unseen: float = 0.0
    items: float = math.nan
    least: float = -math.inf
    most: float = math.inf

    def __post_init__(self) -> None:
        if math.isnan(self.items):
            object.__setattr__(self, "items", float(self.influence.size))
        if self.share:
            object.__setattr__(self, "least", max(self.least, 0.0))
            object.__setattr__(self, "most", min(self.most, 1.0))

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the error: one less than the items, or than the groups of items that the influences stand for."""
        return min(self.items, self.influence.size) - 1

    @cached_property
    def error(self) -> float:
        """Standard error over items."""
        if not self.freedom >= 1:
            return math.nan
        size, freedom = self.influence.size, self.freedom
        squares = float(self.influence @ self.influence)
        return math.hypot(math.sqrt(squares / (size * size * freedom / (freedom + 1))), self.unseen)

    def __neg__(self) -> "Estimate":
        """The same figure with its sign turned, so that more becomes less; no longer a share."""
        return replace(self, value=-self.value, influence=-self.influence, share=False, least=-self.most, most=-self.least)

    def complement(self) -> "Estimate":
        """Return the share of the items that this share leaves out, 1 - value."""
        return replace(self, value=1 - self.value, influence=-self.influence, least=1 - self.most, most=1 - self.least)

    def among(self, chosen: BoolArray) -> "Estimate":
        """Return the mean over the chosen items, (item,) bool, alone; right for a plain mean, whose items' own values are known."""
        part = mean(self.influence[chosen] + self.value, share=self.share)
        return replace(part, unseen=self.unseen * chosen.size / max(int(chosen.sum()), 1), least=self.least, most=self.most)

    def interval(self, level: float = LEVEL) -> Interval:
        """Return the interval, 95 % unless told: Student's t for a mean, Wilson's with the effective number of items for a share."""
        if not self.freedom >= 1:
            return Interval(math.nan, math.nan)
        t = student(self.freedom, level)
        return self._wilson(t) if self.share else self._within(self.value - t * self.error, self.value + t * self.error)

    def _within(self, low: float, high: float) -> Interval:
        return Interval(max(low, self.least), min(high, self.most))

    def _wilson(self, t: float) -> Interval:
        p, n_items = min(max(self.value, 0.0), 1.0), self.items  # a weighted sum may miss an end by rounding
        unseen = min(p, 1 - p) * n_items < 1  # less than one item differs: its variance cannot be read off the items
        if self.error == 0 and not unseen:
            return Interval(p, p)  # a share that items cannot move: coverage over all splits of scores without ties
        per_item = 1 / n_items if unseen else self.error**2 / (p * (1 - p))
        shrink = 1 + t * t * per_item
        middle = (p + t * t * per_item / 2) / shrink
        half = t / shrink * math.sqrt(p * (1 - p) * per_item + (t * per_item / 2) ** 2)
        return self._within(middle - half, middle + half)


NOTHING = Estimate(math.nan, np.empty(0))


def ratio(over: Estimate, under: Estimate) -> Estimate:
    """Return over / under of two estimates over the same items, by the delta method; nothing where under is 0.

    over  : the mean over all items of a figure that is 0 outside a group.
    under : the share of items that belong to the group, so that the ratio rests on that share of the items alone.
    """
    if not under.value > 0:
        return NOTHING
    value = over.value / under.value
    influence = (over.influence - value * under.influence) / under.value
    items = round(under.value * under.items, 6)  # a count, but for rounding
    return Estimate(value, influence, over.share, items=items, least=over.least, most=over.most)


def mean(values: AnyArray, *, share: bool = False, least: float = -math.inf, most: float = math.inf) -> Estimate:
    """Return the estimate of a plain mean of (item,) values, none of which can be below `least` or above `most`; NaN without items."""
    if values.size == 0:
        return Estimate(math.nan, np.empty(0), share)
    value = float(values.mean(dtype=np.float64))
    return Estimate(value, values - value, share, least=least, most=most)


def difference(after: Estimate, before: Estimate) -> Estimate:
    """Return after - before of two estimates over the same items.

    Two runs that agree on all N items may still differ on the next one, so one item's unit of change is never excluded; without it,
    50 items without a flip would prove that nothing changed (the pseudo-count of Agresti & Min 2005, for paired shares).
    """
    items = min(after.items, before.items)
    least, most, unseen = after.least - before.most, after.most - before.least, 1 / max(items, 1)
    return Estimate(after.value - before.value, after.influence - before.influence, False, unseen, items, least, most)


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Return the mean of estimates over the same items; the dependence between them is in their influences."""
    count = len(estimates)
    if count == 1:
        return estimates[0]
    value = sum(e.value for e in estimates) / count
    influence = np.sum([e.influence for e in estimates], axis=0) / count
    share, unseen = all(e.share for e in estimates), sum(e.unseen for e in estimates) / count
    least, most = sum(e.least for e in estimates) / count, sum(e.most for e in estimates) / count
    return Estimate(value, influence, share, unseen, min(e.items for e in estimates), least, most)


@lru_cache(maxsize=64)
def student(freedom: float, level: float = LEVEL) -> float:
    """Return the two-sided quantile of Student's t, 95 % unless told."""
    return float(stdtrit(freedom, 0.5 + level / 2))
