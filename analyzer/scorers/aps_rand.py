"""APS with its random term, which makes coverage exact. Romano, Sesia & Candes 2020, arXiv:2006.02544, equation 5."""

from analyzer.scorers.aps import aps
from analyzer.stats.arrays import FloatArray


def aps_rand(probs: FloatArray, u: FloatArray | None = None) -> FloatArray:
    """Return the APS score minus u times the option's own prob, one u per item."""
    if u is None:
        raise ValueError("aps-rand needs one uniform draw per item")
    return aps(probs) - u[:, None] * probs
