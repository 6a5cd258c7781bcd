"""Margin: how far an option's prob is below that of the best other option. Johansson, Linusson, Lofstrom & Bostrom 2017, IJCNN."""

import numpy as np

from analyzer.stats.arrays import FloatArray


def margin(probs: FloatArray, u: FloatArray | None = None) -> FloatArray:
    """Return the largest prob among the other options minus the option's own; negative for a sole likeliest option."""
    ordered = -np.sort(-probs, axis=1)  # NaN last
    first, second = ordered[:, :1], ordered[:, 1:2]
    return np.asarray(np.where(probs == first, second, first) - probs)
