"""RAPS, regularised adaptive prediction sets. Angelopoulos, Bates, Malik & Jordan 2021, arXiv:2009.14193, deterministic form."""

import numpy as np

from analyzer.scorers.aps import aps
from analyzer.stats.arrays import FloatArray
from analyzer.stats.probs import likely_first


def raps(probs: FloatArray, u: FloatArray | None = None, *, penalty: float = 0.1, k_reg: float = 2) -> FloatArray:
    """Return the APS score plus `penalty` for every rank of the option beyond `k_reg`; the likeliest option has rank 1.

    penalty : lambda of the paper, at least 0.
    """
    rank = np.argsort(likely_first(probs), axis=1, kind="stable") + 1
    return np.asarray(aps(probs) + penalty * np.maximum(rank - k_reg, 0))
