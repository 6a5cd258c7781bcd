"""APS, adaptive prediction sets, deterministic. Romano, Sesia & Candes 2020, arXiv:2006.02544, without the random term."""

import numpy as np

from analyzer.stats.arrays import FloatArray
from analyzer.stats.probs import likely_first


def aps(probs: FloatArray, u: FloatArray | None = None) -> FloatArray:
    """Return the sum of the probs of all options at least as likely, including the option itself; tied options count in index order.

    It is computed as 1 minus the probs of all less likely options, so that the least likely option scores exactly 1. Summed from the top,
    its score was 1 - 4e-16 or 1, and if the threshold was that high, rounding decided which sets are full.
    """
    absent = np.isnan(probs)
    known, scores = np.where(absent, 0.0, probs).ravel(), np.empty(probs.size)
    cells = likely_first(probs) + probs.shape[1] * np.arange(len(probs))[:, None]
    less_likely = np.zeros(len(probs))
    for of_rank in cells.T[::-1]:
        scores[of_rank] = 1.0 - less_likely
        less_likely = less_likely + known[of_rank]
    return np.where(absent, np.nan, scores.reshape(probs.shape))
