"""Mean and standard deviation over all splits, for any number of alphas at once.

What depends on the run is tabulated once per rank p of the threshold. The laws of neighbouring alphas weigh almost the same ranks, so that
they are applied together: a grid of 99 alphas takes a dozen steps at 2,000 items.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from analyzer.conformal.split_law import RankLaw, SetStatistics
from analyzer.stats.arrays import FloatArray, IntArray

WIDEST = 1.5  # laws are applied together if their ranks span at most this many times those of the first: the rest is multiplied by 0
KEPT = 128  # laws and grids of alphas whose products are kept: runs of equally many items share theirs


class Moments(NamedTuple):
    """Mean and standard deviation over splits of each statistic, (statistic,)."""

    mean: FloatArray
    sd: FloatArray


class StratumMoments(NamedTuple):
    """Mean and variance of the values of the items below, or above, every threshold rank, (statistic, p)."""

    mean: FloatArray
    variance: FloatArray


class Neighbours(NamedTuple):
    """Laws that are applied together, and how each weighs the ranks p of their window; all matrices are (law, p).

    numbers : which laws these are.  first, end : the window of ranks.
    chance  : probability of each rank.
    below, above : share of the test items that are ranked below, or above, each rank.
    below_spread, above_spread : the probability times what the variance of the values of the items below, or above, the rank is multiplied
              by in the variance of the mean over test items.
    """

    numbers: IntArray
    first: int
    end: int
    chance: FloatArray
    below: FloatArray
    above: FloatArray
    below_spread: FloatArray
    above_spread: FloatArray


def moments(law: RankLaw, statistics: SetStatistics) -> Moments:
    """Return mean and sd over all splits of every statistic."""
    mean, sd = all_moments([law], statistics)
    return Moments(mean[0], sd[0])


def all_moments(laws: Sequence[RankLaw], statistics: SetStatistics) -> Moments:
    """Return (law, statistic) mean and sd over all splits. The laws are of equally many items and calibration items."""
    start, end = min(law.first for law in laws), max(law.first + law.weights.size for law in laws)
    ranks = np.arange(start, end, dtype=np.float64)
    below = _stratum_moments(statistics, statistics.table.below[:, start:end], ranks)
    above = _stratum_moments(statistics, statistics.table.above[:, start:end], np.maximum(laws[0].n_items - 1 - ranks, 0))
    means, variances = np.empty((2, len(laws), len(statistics.names)))
    for near in _neighbours(tuple(laws)):
        window = slice(near.first - start, near.end - start)
        mean = below.mean[:, window] @ (near.chance * near.below).T + above.mean[:, window] @ (near.chance * near.above).T
        at_rank = below.mean[:, window] * near.below[:, None]  # (law, statistic, p)
        at_rank += above.mean[:, window] * near.above[:, None]
        at_rank -= mean.T[:, :, None]
        at_rank *= at_rank
        variance = below.variance[:, window] @ near.below_spread.T + above.variance[:, window] @ near.above_spread.T
        means[near.numbers], variances[near.numbers] = mean.T, variance.T + (at_rank @ near.chance[:, :, None])[:, :, 0]
    return Moments(means, np.sqrt(variances))


@lru_cache(maxsize=KEPT)
def _neighbours(laws: tuple[RankLaw, ...]) -> list[Neighbours]:
    """Return the laws in groups that are applied together."""
    rising = sorted(range(len(laws)), key=lambda number: laws[number].first)
    groups: list[list[int]] = []
    for number in rising:
        law = laws[number]
        lead = laws[groups[-1][0]] if groups else None
        if lead and law.first + law.weights.size - lead.first <= WIDEST * lead.weights.size:
            groups[-1].append(number)
        else:
            groups.append([number])
    return [_together(laws, np.array(group)) for group in groups]


def _together(laws: Sequence[RankLaw], numbers: IntArray) -> Neighbours:
    chosen = [laws[number] for number in numbers]
    first, end = chosen[0].first, max(law.first + law.weights.size for law in chosen)
    chance, below, above, below_spread, above_spread = tables = np.zeros((5, len(chosen), end - first))
    for row, law in enumerate(chosen):
        window = slice(law.first - first, law.first - first + law.weights.size)
        n_tested = law.n_items - law.n_calibration
        chance[row, window] = law.weights
        below[row, window], above[row, window] = law.tested_below / n_tested, law.tested_above / n_tested
        for spread, share, size in ((below_spread, below, law.ranks), (above_spread, above, law.n_items - 1 - law.ranks)):
            taken = share[row, window] * n_tested / np.maximum(size, 1)
            spread[row, window] = law.weights * share[row, window] * (1 - taken) / n_tested
    return Neighbours(numbers, first, end, *tables)


def _stratum_moments(statistics: SetStatistics, hits: IntArray, size: FloatArray) -> StratumMoments:
    """Return the moments of the values of a stratum of (p,) `size` items, from its hits (row, p)."""
    reached, at_least_one = hits.astype(np.float64), np.maximum(size, 1)
    total = statistics.start[:, None] * size + statistics.steps @ reached
    squares = statistics.square_start[:, None] * size + statistics.square_steps @ reached
    variance = np.maximum((squares - total**2 / at_least_one) / np.maximum(size - 1, 1), 0.0)
    return StratumMoments(total / at_least_one, np.asarray(variance))
