"""Top-k: the option's rank by prob, so that all sets have the same number of options. Angelopoulos & Bates 2021, arXiv:2107.07511."""

import numpy as np

from analyzer.stats.arrays import FloatArray
from analyzer.stats.probs import likely_first


def topk(probs: FloatArray, u: FloatArray | None = None) -> FloatArray:
    """Return the rank of each option, 1 for the likeliest; tied options in index order."""
    rank = np.argsort(likely_first(probs), axis=1, kind="stable") + 1.0
    return np.where(np.isnan(probs), np.nan, rank)
