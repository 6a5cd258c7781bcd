"""The exact split law: over all C(N, n) choices of n calibration items of N, without drawing one of them.

Where the threshold falls is a law over ranks; given the rank p, the items below and above p are tested by simple random sampling
without replacement. Means and variances follow in closed form. Derivation and proof: exact_law.md.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from analyzer.arrays import FloatArray, IntArray

REACH_SD = 40  # ranks further than this from the mean have probability below 1e-17, even for the exponential tail of k = 1


class RankLaw(NamedTuple):
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
    """How many items have at least `row + 1` hits at threshold rank p, of those ranked below and above p.

    rows  : (row, item) rank at which an item's next hit comes; rising down the rows.
    below : (row, p) items ranked below p, p from 0 to N.
    above : (row, p) items ranked above p.
    enter : (row, rank) items whose hit comes exactly at this rank.
    """

    rows: IntArray
    below: IntArray
    above: IntArray
    enter: IntArray


class Statistic(NamedTuple):
    """A mean over test items of `value[number of hits]`, hits counted by a table. `share`: it lies in [0, 1].

    value : length rows + 1; for set size 0, 1, .., K; for a rate 0 or 1.
    """

    table: Crossings
    value: tuple[float, ...]
    share: bool


class Moments(NamedTuple):
    """Mean and standard deviation over all splits of a mean over test items."""

    mean: float
    sd: float


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
    return RankLaw(n_items, n, k, first, weights / weights.sum())


def crossings(rows: IntArray, own: IntArray) -> Crossings:
    """Return the counts at every threshold rank, from two bincounts and cumulative sums.

    rows : (row, item) ranks of hits, rising down the rows.  own : (item,) rank of each item.
    An item ranked below p counts there from rank max(own + 1, r) on; one ranked above p from r until own.
    """
    n_items = own.size
    below = _count(np.maximum(rows, own + 1))[:, : n_items + 1].cumsum(axis=1)
    above = (_count(np.minimum(rows, own))[:, : n_items + 1] - _count(own[None])[:, : n_items + 1]).cumsum(axis=1)
    return Crossings(rows, below, above, _count(rows))


def moments(law: RankLaw, statistic: Statistic) -> Moments:
    """Return mean and sd over all splits of a statistic."""
    table, value = statistic.table, statistic.value
    window = slice(law.first, law.first + law.weights.size)
    squares = [v * v for v in value]
    n_tested = law.n_items - law.n_calibration
    strata = (
        (table.below[:, window].astype(np.float64), law.ranks, law.tested_below),
        (table.above[:, window].astype(np.float64), np.maximum(law.n_items - 1 - law.ranks, 0), law.tested_above),
    )
    sums = [_sample(_total(hits, size, value), _total(hits, size, squares), size, tested) for hits, size, tested in strata]
    given_rank = (sums[0][0] + sums[1][0]) / n_tested
    mean = float(law.weights @ given_rank)
    variance = float(law.weights @ ((sums[0][1] + sums[1][1]) / n_tested**2 + (given_rank - mean) ** 2))
    return Moments(mean, math.sqrt(max(variance, 0.0)))


def _count(rows: IntArray) -> IntArray:
    width = rows.shape[1] + 2
    offset = np.arange(rows.shape[0])[:, None] * width
    return np.bincount((rows + offset).ravel(), minlength=rows.shape[0] * width).reshape(-1, width)


def _total(counts: FloatArray, n_items: FloatArray, value: Sequence[float]) -> FloatArray:
    """Sum of value[hits] over a stratum of n_items, from how many items have at least 1, 2, .. hits."""
    return value[0] * n_items + np.diff(np.asarray(value, dtype=np.float64)) @ counts


def _sample(total: FloatArray, squares: FloatArray, size: FloatArray, tested: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and variance of the sum over `tested` items drawn without replacement from a stratum of `size`."""
    share = tested / np.maximum(size, 1)
    spread = (squares - total**2 / np.maximum(size, 1)) / np.maximum(size - 1, 1)
    return total * share, tested * (1 - share) * np.maximum(spread, 0.0)
