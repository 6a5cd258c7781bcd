"""LAC, least ambiguous set-valued classifier: 1 minus the option's prob. Sadinle, Lei & Wasserman 2019, arXiv:1609.00451."""

from analyzer.stats.arrays import FloatArray


def lac(probs: FloatArray, u: FloatArray | None = None) -> FloatArray:
    """Return 1 - p."""
    return 1.0 - probs
