"""APS, adaptive prediction sets, deterministic. Romano, Sesia & Candes 2020, arXiv:2006.02544, without the random term."""

import numpy as np

from analyzer.stats.arrays import FloatArray
from analyzer.stats.probs import likely_first


def aps(probs: FloatArray, u: FloatArray | None = None) -> FloatArray:
    """Return the cumulative prob of all options at least as likely, own included; tied options count in index order."""
    order = likely_first(probs)
    cumulated = np.cumsum(np.take_along_axis(probs, order, axis=1), axis=1)
    scores = np.empty_like(probs)
    np.put_along_axis(scores, order, cumulated, axis=1)
    return scores
