"""APS, adaptive prediction sets, deterministic. Romano, Sesia & Candes 2020, arXiv:2006.02544, without the random term."""

import numpy as np

from analyzer.stats.arrays import FloatArray
from analyzer.stats.probs import likely_first


def aps(probs: FloatArray, u: FloatArray | None = None) -> FloatArray:
    """Return the sum of the probs of all options at least as likely, including the option itself; tied options count in index order.

    It is computed as 1 minus the probs of all less likely options, so that the least likely option scores exactly 1. Summed from the top,
    its score was 1 - 4e-16 or 1, and if the threshold was that high, rounding decided which sets are full.
    """
    order = likely_first(probs)
    rising = np.nan_to_num(np.take_along_axis(probs, order, axis=1))[:, ::-1].cumsum(axis=1)
    less_likely = np.zeros_like(probs)
    less_likely[:, :-1] = rising[:, -2::-1]
    scores = np.empty_like(probs)
    np.put_along_axis(scores, order, 1.0 - less_likely, axis=1)
    return np.where(np.isnan(probs), np.nan, scores)
