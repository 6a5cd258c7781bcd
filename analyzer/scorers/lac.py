"""LAC, least ambiguous classifier: how much prob an option lacks. Sadinle, Lei & Wasserman 2019, arXiv:1609.00451."""

from analyzer.stats.arrays import FloatArray


def lac(probs: FloatArray, u: FloatArray | None = None) -> FloatArray:
    """Return 1 - p."""
    return 1.0 - probs
