"""The exact split law: over all C(N, n) choices of n calibration items of N, without drawing one of them.

Where the threshold falls is a law over ranks; given the rank p, the items below and above p are tested by simple random sampling
without replacement. Means and variances follow in closed form. Derivation and proof: exact_law.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from analyzer.conformal.ranks import Ranks
from analyzer.stats.arrays import FloatArray, IntArray
from analyzer.stats.clusters import Clusters
from analyzer.stats.estimate import Estimate

NEGLIGIBLE = 1e-20  # weights below this share of the largest are left out; their sum cannot reach the last digit
RECENT = 128  # laws kept: runs of equally many items share theirs
REACH_SD = 40  # ranks further than this from the mean have probability below 1e-17, even for the exponential tail of k = 1


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


def _count(rows: IntArray) -> IntArray:
    width = rows.shape[1] + 2
    offset = np.arange(rows.shape[0])[:, None] * width
    return np.bincount((rows + offset).ravel(), minlength=rows.shape[0] * width).reshape(-1, width)
