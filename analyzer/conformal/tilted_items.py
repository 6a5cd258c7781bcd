"""Populations that could have produced these items: what set sizes would be if more, or fewer, items had scores beyond a boundary.

The number of items beyond a boundary is binomial, which bounds their share in the population. The items' weights are tilted until the share
is at either bound, and the mean of every statistic of sets in such a population is computed with the whole distribution of its threshold:
the k-th of n uniform levels is Beta(k, n + 1 - k).

A mean is a sum over hits of the chance that the threshold is at or above the hit's rank. That chance is 1 or 0 but for the few ranks that
the threshold may have, and weights differ only between boundaries: so hits are counted once by rank and boundary, for all tilts together.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import betaincc, betaincinv, betaln, xlog1py, xlogy

from analyzer.conformal.ranks import Ranks
from analyzer.conformal.split_law import RECENT, RankLaw
from analyzer.stats.arrays import BoolArray, FloatArray, IntArray
from analyzer.stats.clusters import Clusters

BOUNDARIES = np.array([0.02, 0.15, 0.35, 0.5, 0.65, 0.85, 0.98])  # quantiles of the threshold's level
NEGLIGIBLE = 1e-18  # chance of a level on either side beyond which its distribution is not evaluated
KNOTS = 2_048  # levels at which it is, with polynomials between them


@dataclass(frozen=True, eq=False)
class Threshold:
    """The distribution of the threshold's rank, and the ranks of the scores."""

    law: RankLaw
    ranks: Ranks


class Tilt(NamedTuple):
    """Weights of the items: `below` for those ranked below the boundary of this number, `beyond` for the others."""

    number: int
    below: float
    beyond: float


@lru_cache(maxsize=8)  # a cell asks several times, for the interval of its set size and for the reason why there is none
def threshold_design_effect(threshold: Threshold, clusters: Clusters | None) -> float:
    """Return how many times as large the variance of the number of items above the threshold is as for independent items; at least 1."""
    if not clusters:
        return 1.0
    law = threshold.law
    beyond = threshold.ranks.item_rank >= round(law.k / (law.n_calibration + 1) * law.n_items)
    return design_effect(clusters, beyond) if 0 < beyond.sum() < beyond.size else 1.0


def design_effect(clusters: Clusters | None, beyond: BoolArray) -> float:
    """Return how many times as large the variance of the number of items beyond a boundary, (item,) bool, is as for independent items."""
    if not clusters:
        return 1.0
    side = beyond - beyond.mean()
    return max(clusters.covariance(side, side) * beyond.size**2 / float(side @ side), 1.0)


class LevelChances(NamedTuple):
    """The chance that the threshold's level is at or above a level, as cubic polynomials between evenly spaced levels.

    low, step : the first of these levels, up to which the chance is 1, and the distance between them; from the last on, the chance is 0.
    cubics    : (coefficient, knot) of the polynomials in the share of a step beyond the knot, highest power first.
    """

    low: float
    step: float
    cubics: FloatArray

    @property
    def high(self) -> float:
        """The last of the levels."""
        return float(self.low + self.step * (self.cubics.shape[1] - 1))

    def at(self, levels: FloatArray) -> FloatArray:
        """Return the chance for each level, in the shape of `levels`."""
        steps = np.clip((levels - self.low) / self.step, 0.0, self.cubics.shape[1] - 1)
        knot = steps.astype(np.intp)
        return np.asarray(np.polyval(self.cubics.take(knot, axis=1), steps - knot))


@lru_cache(maxsize=RECENT)
def level_chances(k: int, n_calibration: int) -> LevelChances:
    """Return the distribution of the k-th of n uniform levels, Beta(k, n + 1 - k), k <= n, within 1e-9.

    Computed once for all runs of equally many items, since the incomplete beta function is slow.
    """
    a, b = k, n_calibration + 1 - k
    low, high = betaincinv(a, b, NEGLIGIBLE), 1 - betaincinv(b, a, NEGLIGIBLE)
    levels, step = np.linspace(low, high, KNOTS, retstep=True)
    chances = betaincc(a, b, levels)
    chances[[0, -1]] = 1.0, 0.0
    slopes = -step * np.exp(xlogy(a - 1, levels) + xlog1py(b - 1, -levels) - betaln(a, b))
    fall, first, last = np.diff(chances), slopes[:-1], slopes[1:]
    cubics = np.zeros((4, KNOTS))  # Hermite's: the values and slopes at both ends of each step are exact
    cubics[:, :-1] = first + last - 2 * fall, 3 * fall - 2 * first - last, first, chances[:-1]
    return LevelChances(float(low), float(step), cubics)


class TiltedMeans(NamedTuple):
    """Means of the statistics of sets.

    middle   : (statistic,) in the population in which the items have equal weights.
    extremes : (boundary, 2, statistic) in those with the fewest and the most items beyond each boundary.
    """

    middle: FloatArray
    extremes: FloatArray


@dataclass(frozen=True, eq=False)
class Populations:
    """Items whose weights are tilted at several boundaries.

    rows, steps, start : (row, item) hits, (statistic, row) what each adds to an item's value, (statistic,) value of an item without any
                         hit, as in `SetStatistics`.
    member     : (item,) bool, the items over which the means are taken; None for all.
    clusters   : of dependent items; the number of items beyond a boundary then counts as many independent ones as its variance says.
    """

    threshold: Threshold
    rows: IntArray
    steps: FloatArray
    start: FloatArray
    member: BoolArray | None = None
    clusters: Clusters | None = None
    _by_level: dict[float, TiltedMeans] = field(default_factory=dict)

    @cached_property
    def boundaries(self) -> list[int]:
        """Ranks that divide the items into two parts: of tied ranks the first, without 0, below which there are no items."""
        law, ranks = self.threshold.law, self.threshold.ranks
        alike = threshold_design_effect(self.threshold, self.clusters)
        levels = betaincinv(law.k / alike, (law.n_calibration + 1 - law.k) / alike, BOUNDARIES)
        positions = np.minimum((levels * law.n_items).astype(np.int64), law.n_items - 1)
        return sorted({int(first) for first in ranks.first[positions] if first > 0})

    def sides(self) -> Iterator[BoolArray]:
        """Yield for each boundary which items are beyond it, (item,) bool."""
        return (self.threshold.ranks.item_rank >= boundary for boundary in self.boundaries)

    def tilted(self, level: float) -> TiltedMeans:
        """Return the means without a tilt, and in the populations with the fewest and the most items beyond each boundary.

        level : of the interval of the share of items beyond, such as 0.95.
        """
        if level not in self._by_level:
            n_items = self.threshold.law.n_items
            tilts = [Tilt(0, 1.0, 1.0)]
            for number, (boundary, alike) in enumerate(zip(self.boundaries, self._design_effects, strict=True)):
                count, n_counted, now = (n_items - boundary) / alike, n_items / alike, 1 - boundary / n_items
                for share in betaincinv(count + 0.5, n_counted - count + 0.5, [(1 - level) / 2, 1 - (1 - level) / 2]):
                    tilts.append(Tilt(number, float(1 - share) / (1 - now), float(share) / now))
            means = self._tilted_means(tilts)
            self._by_level[level] = TiltedMeans(means[0], means[1:].reshape(len(self.boundaries), 2, len(self.start)))
        return self._by_level[level]

    @cached_property
    def _design_effects(self) -> list[float]:
        return [design_effect(self.clusters, beyond) for beyond in self.sides()]

    def _tilted_means(self, tilts: list[Tilt]) -> FloatArray:
        """Return (tilt, statistic) means; calibration items are drawn from the tilted items as well."""
        first, chance = self._chances(tilts)
        width, n_parts, n_rows = chance.shape[1], len(self.boundaries) + 1, len(self.rows)
        part_of_item = np.searchsorted(self.boundaries, self.threshold.ranks.item_rank, side="right")  # how many boundaries it is beyond
        member_weight = None if self.member is None else self.member.astype(np.float64)
        bin_index = (part_of_item + n_parts * np.arange(n_rows)[:, None]) * width + np.clip(self.rows - first, 0, width - 1)
        weights = None if member_weight is None else np.broadcast_to(member_weight, bin_index.shape).ravel()
        hits = np.bincount(bin_index.ravel(), weights, n_rows * n_parts * width).reshape(n_rows, n_parts, width)
        weight = np.array([[tilt.beyond if beyond > tilt.number else tilt.below for beyond in range(n_parts)] for tilt in tilts])
        reached = np.einsum("rpt,tp->tr", hits @ chance.T, weight)
        total = weight @ np.bincount(part_of_item, member_weight, n_parts)
        return np.asarray(self.start + reached @ self.steps.T / total[:, None])

    def _chances(self, tilts: list[Tilt]) -> tuple[int, FloatArray]:
        """Return (tilt, rank) the chance that the threshold is at or above a rank, and the first of these ranks; before it, it is 1.

        At the last of these ranks, and after it, the chance is 0.
        """
        n_items, at_or_above = self.threshold.law.n_items, level_chances(self.threshold.law.k, self.threshold.law.n_calibration)
        low, high = at_or_above.low, at_or_above.high
        boundary = np.array([self.boundaries[tilt.number] if self.boundaries else 0 for tilt in tilts])
        below, beyond = np.array([[tilt.below, tilt.beyond] for tilt in tilts]).T
        # The level of a rank, the share of weight ranked below it, rises from 0 with slope `below`, from the boundary on with `beyond`.
        ends = n_items * np.array([[low], [high]])
        reached = np.where(ends <= boundary * below, ends / below, boundary + (ends - boundary * below) / beyond)
        first, last = max(math.floor(reached[0].min()) - 1, 0), min(math.ceil(reached[1].max()) + 1, n_items)
        rank = np.arange(first, last + 1)[:, None]
        levels = np.minimum((np.minimum(rank, boundary) * below + np.maximum(rank - boundary, 0) * beyond) / n_items, 1.0).T
        if last == n_items:
            levels[:, -1] = 1.0
        return first, at_or_above.at(levels)
