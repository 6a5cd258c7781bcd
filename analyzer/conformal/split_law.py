"""The exact split law: over all C(N, n) choices of n calibration items of N, without drawing one of them.

Where the threshold falls is a law over ranks; given the rank p, the items below and above p are tested by simple random sampling
without replacement. Means and variances follow in closed form. Derivation and proof: exact_law.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from analyzer.conformal.ranks import Ranks
from analyzer.stats.arrays import FloatArray, IntArray
from analyzer.stats.clusters import Clusters
from analyzer.stats.estimate import Estimate

NEGLIGIBLE = 1e-20  # weights below this share of the largest are left out; their sum cannot reach the last digit
RECENT = 128  # laws kept: runs of equally many items share theirs
REACH_SD = 40  # ranks further than this from the mean have probability below 1e-17, even for the exponential tail of k = 1


class Stratum(NamedTuple):
    """Items of which some are tested, given the threshold's rank p; both arrays are (p,).

    share  : of the test items, those from this stratum: what the mean of the stratum's values counts in the mean over test items.
    spread : what the variance of the stratum's values is multiplied by in the variance of that mean.
    """

    share: FloatArray
    spread: FloatArray


class WeightedSpread(NamedTuple):
    """The spread of the items ranked below and above each rank, (p,), times the rank's probability."""

    below: FloatArray
    above: FloatArray


@dataclass(frozen=True, eq=False)
class RankLaw:
    """Law of the threshold's rank p: `weights[j]` is the probability of p = first + j."""

    n_items: int
    n_calibration: int
    k: int
    first: int
    weights: FloatArray

    @property
    def ranks(self) -> FloatArray:
        """The ranks p that have weight, as float64."""
        return np.arange(self.first, self.first + self.weights.size, dtype=np.float64)

    @property
    def tested_below(self) -> FloatArray:
        """Number of tested items among those ranked below p."""
        return self.ranks - self.k + 1

    @property
    def tested_above(self) -> FloatArray:
        """Number of tested items among those ranked above p; the item at p calibrates."""
        return self.n_items - 1 - self.ranks - self.n_calibration + self.k

    @cached_property
    def below(self) -> Stratum:
        """The items ranked below p."""
        return self._stratum(self.tested_below, self.ranks)

    @cached_property
    def above(self) -> Stratum:
        """The items ranked above p."""
        return self._stratum(self.tested_above, self.n_items - 1 - self.ranks)

    @cached_property
    def weighted_spread(self) -> WeightedSpread:
        """The spread of both strata times the probability of each rank."""
        return WeightedSpread(self.below.spread * self.weights, self.above.spread * self.weights)

    def _stratum(self, tested: FloatArray, size: FloatArray) -> Stratum:
        share = tested / (self.n_items - self.n_calibration)
        return Stratum(share, share * (1 - tested / np.maximum(size, 1)) / (self.n_items - self.n_calibration))

    def at_least(self) -> FloatArray:
        """Return (rank,) for ranks 0 to N + 1 the probability that the threshold's rank is at least that; 0 beyond N."""
        chance = np.zeros(self.n_items + 2)
        chance[: self.first + 1] = 1.0
        chance[self.first : self.first + self.weights.size] = self.weights[::-1].cumsum()[::-1]
        return chance


class Crossings(NamedTuple):
    """Hits counted at every threshold rank. A hit is an event of an item, such as an option entering its set, that holds from a rank on.

    rows  : (row, item) the rank from which on an item's hit holds; one row per kind of hit.
    below : (row, p) items ranked below p whose hit holds at p, p from 0 to N.
    above : (row, p) the same of items ranked above p.
    enter : (row, rank) items whose hit begins exactly at this rank.
    """

    rows: IntArray
    below: IntArray
    above: IntArray
    enter: IntArray


class SetStatistics(NamedTuple):
    """Means over test items that are functions of an item's hits: start + steps @ (hits reached, one per row).

    table : hits; row 0 is the answer's, rows 1 to K the options' in the order in which they enter the set.
    names : (statistic,).  share : (statistic,) whether it lies in [0, 1].
    start : (statistic,) value without any hit.  steps : (statistic, row) what each hit adds.
    square_start, square_steps : the same for the squared value.
    largest : of a statistic that is no share: the largest set, in options.
    """

    table: Crossings
    names: tuple[str, ...]
    share: tuple[bool, ...]
    start: FloatArray
    steps: FloatArray
    square_start: FloatArray
    square_steps: FloatArray
    largest: float = math.inf

    def estimates(self, means: Sequence[float] | FloatArray, influence: FloatArray, clusters: Clusters | None) -> dict[str, Estimate]:
        """Return by name the estimates of means, (statistic,), with their influences, (statistic, item), and the items' clusters."""
        ends = [1.0 if share else self.largest for share in self.share]
        return {
            name: Estimate(float(means[i]), influence[i], self.share[i], least=0.0, most=ends[i], clusters=clusters)
            for i, name in enumerate(self.names)
        }


class StratumMoments(NamedTuple):
    """Mean and variance of the values of the items below, or above, every threshold rank, (statistic, p)."""

    mean: FloatArray
    variance: FloatArray


class Moments(NamedTuple):
    """Mean and standard deviation over splits of each statistic, (statistic,)."""

    mean: FloatArray
    sd: FloatArray


@lru_cache(maxsize=RECENT)
def rank_law(n_items: int, n_calibration: int, k: int) -> RankLaw:
    """Return P(p) = C(p, k-1) C(N-1-p, n-k) / C(N, n), built outward from its centre by ratios; k > n puts all weight on p = N (+inf)."""
    n = n_calibration
    if k > n:
        return RankLaw(n_items, n, n + 1, n_items, np.ones(1))
    centre = k * (n_items + 1) / (n + 1) - 1
    variance = k * (n + 1 - k) * (n_items + 1) * (n_items - n) / ((n + 1) ** 2 * (n + 2))
    reach = math.ceil(REACH_SD * math.sqrt(variance)) + REACH_SD
    start = min(max(round(centre), k - 1), n_items - 1 - n + k)
    first, last = max(k - 1, start - reach), min(n_items - 1 - n + k, start + reach)
    p = np.arange(first, last, dtype=np.float64)
    ratio = (p + 1) / (p + 2 - k) * (n_items - 1 - p - n + k) / (n_items - 1 - p)
    down = np.cumprod(1 / ratio[: start - first][::-1])[::-1]
    weights = np.concatenate([down, [1.0], np.cumprod(ratio[start - first :])])
    heavy = np.flatnonzero(weights > NEGLIGIBLE * weights.max())
    weights = weights[heavy[0] : heavy[-1] + 1]
    return RankLaw(n_items, n, k, first + int(heavy[0]), weights / weights.sum())


def crossings(rows: IntArray, item_rank: IntArray) -> Crossings:
    """Return the counts at every threshold rank, from two bincounts and cumulative sums.

    rows : (row, item) ranks of hits.  item_rank : (item,) rank of each item's answer score.
    A hit at rank r of an item ranked i counts below p from p = max(i + 1, r) on, and above p from p = r until p = i.
    """
    n_items = item_rank.size
    below = _count(np.maximum(rows, item_rank + 1))[:, : n_items + 1].cumsum(axis=1)
    above = _count(np.minimum(rows, item_rank))[:, : n_items + 1].cumsum(axis=1)
    above -= np.minimum(np.arange(1, n_items + 2), n_items)  # one item has each rank
    return Crossings(rows, below, above, _count(rows))


def set_statistics(ranks: Ranks, *, sizes: bool = False) -> SetStatistics:
    """Return what is measured of prediction sets: coverage, set size, empty and singleton rate.

    sizes : also the rate of every set size, `size_<k>_rate`.
    """
    table = crossings(np.vstack([ranks.answer[None], np.sort(ranks.option, axis=0)]), ranks.item_rank)
    return SetStatistics(table, *_of_sets(ranks.option.shape[0], sizes))


@cache  # a few for each number of options
def _of_sets(n_options: int, sizes: bool) -> tuple[Any, ...]:
    """Return what `set_statistics` needs beside the hits."""
    count = np.arange(n_options + 1)
    by_size = {"set_size": count, "empty_rate": count == 0, "singleton_rate": count == 1}
    by_size |= {f"size_{size}_rate": count == size for size in count if sizes}
    values = np.array(list(by_size.values()), dtype=np.float64)
    covered = np.zeros((1, 1 + n_options))
    covered[0, 0] = 1.0
    names = ("coverage", *by_size)
    first, square = (np.vstack([covered, np.insert(np.diff(v, axis=1), 0, 0.0, axis=1)]) for v in (values, values**2))
    start, square_start = (np.append(0.0, v[:, 0]) for v in (values, values**2))
    share = tuple(name != "set_size" for name in names)
    return names, share, start, first, square_start, square, float(n_options)


def moments(law: RankLaw, statistics: SetStatistics) -> Moments:
    """Return mean and sd over all splits of every statistic."""
    mean, sd = all_moments([law], statistics)
    return Moments(mean[0], sd[0])


def all_moments(laws: Sequence[RankLaw], statistics: SetStatistics) -> Moments:
    """Return (law, statistic) mean and sd over all splits. The laws are of equally many items; none depends on the others."""
    start, end = min(law.first for law in laws), max(law.first + law.weights.size for law in laws)
    ranks, table = np.arange(start, end, dtype=np.float64), statistics.table
    below = _stratum_moments(statistics, table.below[:, start:end], ranks)
    above = _stratum_moments(statistics, table.above[:, start:end], np.maximum(laws[0].n_items - 1 - ranks, 0))
    means, variances = np.empty((2, len(laws), len(statistics.names)))
    for number, law in enumerate(laws):
        window = slice(law.first - start, law.first - start + law.weights.size)
        at_rank = below.mean[:, window] * law.below.share
        at_rank += above.mean[:, window] * law.above.share
        means[number] = at_rank @ law.weights
        at_rank -= means[number, :, None]
        at_rank *= at_rank
        within = below.variance[:, window] @ law.weighted_spread.below + above.variance[:, window] @ law.weighted_spread.above
        variances[number] = within + at_rank @ law.weights
    return Moments(means, np.sqrt(variances))


def _count(rows: IntArray) -> IntArray:
    width = rows.shape[1] + 2
    offset = np.arange(rows.shape[0])[:, None] * width
    return np.bincount((rows + offset).ravel(), minlength=rows.shape[0] * width).reshape(-1, width)


def _stratum_moments(statistics: SetStatistics, hits: IntArray, size: FloatArray) -> StratumMoments:
    """Return the moments of the values of a stratum of (p,) `size` items, from its hits (row, p)."""
    reached, at_least_one = hits.astype(np.float64), np.maximum(size, 1)
    total = statistics.start[:, None] * size + statistics.steps @ reached
    squares = statistics.square_start[:, None] * size + statistics.square_steps @ reached
    variance = np.maximum((squares - total**2 / at_least_one) / np.maximum(size - 1, 1), 0.0)
    return StratumMoments(total / at_least_one, np.asarray(variance))
