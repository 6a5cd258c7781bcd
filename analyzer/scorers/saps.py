"""SAPS, sorted adaptive prediction sets. Huang, Xi, Zhang, Yao, Qiu & Wei 2024, arXiv:2310.06430, equation 6, with u = 1/2."""

import numpy as np

from analyzer.stats.arrays import FloatArray
from analyzer.stats.probs import likely_first


def saps(probs: FloatArray, u: FloatArray | None = None, *, weight: float = 0.2) -> FloatArray:
    """Return max prob plus `weight` for every rank after the second, with half a step for the random term of the paper.

    The likeliest option scores p_max / 2, an option at rank r >= 2 p_max + (r - 1.5) * weight: only the top prob and the order count.
    weight : lambda of the paper, at least 0.
    """
    rank = np.argsort(likely_first(probs), axis=1, kind="stable") + 1
    top = np.nanmax(probs, axis=1, keepdims=True)
    scores = np.where(rank == 1, top / 2, top + (rank - 1.5) * weight)
    return np.where(np.isnan(probs), np.nan, scores)
