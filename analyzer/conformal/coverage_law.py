"""The exact distribution of coverage over all splits, also with tied scores.

Given the threshold's rank p, the p - k + 1 tested items below p are covered. Above p, only the g items whose score ties with the one at p
are covered, and the number of tested items among them is hypergeometric. Without ties this is Beta-Binomial(N - n, k, n + 1 - k).
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import betaln, ndtri

from analyzer.conformal.split_law import Crossings, RankLaw
from analyzer.stats.arrays import FloatArray, IntArray

QUANTILES = {"coverage_p025": 0.025, "coverage_p25": 0.25, "coverage_p50": 0.5, "coverage_p75": 0.75, "coverage_p975": 0.975}
BAND, ROUNDING = 0.999, 1e-12
REACH_SD = 12  # counts further than this many standard deviations from the hypergeometric mean are left out


class CoverageLaw(NamedTuple):
    """P(coverage = value): rising values in [0, 1] and their probabilities."""

    value: FloatArray
    probability: FloatArray

    def quantile(self, level: float) -> float:
        """Return the smallest value that coverage does not exceed with at least this probability."""
        index = int(np.searchsorted(self.probability.cumsum(), level - 1e-12))
        return float(self.value[min(index, self.value.size - 1)])


def coverage_law(law: RankLaw, table: Crossings) -> CoverageLaw:
    """Return the distribution of coverage over all splits; row 0 of the table has the hits of the answers."""
    n_tested = law.n_items - law.n_calibration
    window = slice(law.first, law.first + law.weights.size)
    tied = table.above[0, window]
    covered = np.zeros(n_tested + 1)
    sure = law.tested_below.astype(np.int64)
    plain = tied == 0
    np.add.at(covered, sure[plain], law.weights[plain])
    for index in np.flatnonzero(~plain):
        above = law.n_items - 1 - law.first - int(index)
        x = _likely_counts(above, int(tied[index]), int(law.tested_above[index]))
        covered[sure[index] + x] += law.weights[index] * _hypergeometric(x, above, int(tied[index]), int(law.tested_above[index]))
    counts = np.flatnonzero(covered > 0)
    return CoverageLaw(counts / n_tested, covered[counts] / covered.sum())


def coverage_quantiles(law: RankLaw, table: Crossings, drawn: FloatArray | None) -> dict[str, float]:
    """Return the quantiles of coverage over all splits, or over the drawn splits' coverage, (split,), if given."""
    if drawn is not None:
        return {name: float(np.quantile(drawn, level)) for name, level in QUANTILES.items()}
    known = coverage_law(law, table)
    return {name: known.quantile(level) for name, level in QUANTILES.items()}


def coverage_band(law: RankLaw, table: Crossings, n_splits: int) -> tuple[float, float]:
    """Return the 99.9 % band of the mean coverage of n_splits drawn splits: exact quantiles for one split, a normal band for more."""
    known = coverage_law(law, table)
    if n_splits == 1:
        return known.quantile((1 - BAND) / 2), known.quantile((1 + BAND) / 2)
    mean = float(known.value @ known.probability)
    sd = math.sqrt(max(float(known.value**2 @ known.probability) - mean**2, 0.0))
    reach = float(ndtri((1 + BAND) / 2)) * sd / math.sqrt(n_splits) + ROUNDING
    return mean - reach, mean + reach


def _likely_counts(size: int, marked: int, drawn: int) -> IntArray:
    mean = drawn * marked / size
    reach = REACH_SD * np.sqrt(mean * (1 - marked / size)) + REACH_SD
    return np.arange(max(0, drawn + marked - size, int(mean - reach)), min(drawn, marked, int(mean + reach)) + 1)


def _hypergeometric(x: IntArray, size: int, marked: int, drawn: int) -> FloatArray:
    """P(x marked items among `drawn` of `size`): C(marked, x) C(size - marked, drawn - x), normalised over x."""
    log = -betaln(x + 1, marked - x + 1) - betaln(drawn - x + 1, size - marked - drawn + x + 1)
    weights = np.exp(log - log.max())
    return np.asarray(weights / weights.sum())
