"""Drawn splits: what each of them gives, the plain way round from the exact law."""

import math

import numpy as np

from analyzer.arrays import BoolArray, FloatArray, IntArray
from analyzer.law import Moments, Statistic


def drawn_moments(k: int, statistic: Statistic, own: IntArray, masks: BoolArray) -> Moments:
    """Return mean and sd over drawn splits of a statistic; the sd of a single split is NaN.

    k     : 1-based rank of the threshold among the calibration scores; above their number it is +inf.
    own   : (item,) rank of each item's answer score.  masks : (split, item) true where an item calibrates.
    """
    means = split_means(k, statistic, own, masks)
    return Moments(float(means.mean()), float(means.std(ddof=1)) if means.size > 1 else math.nan)


def split_means(k: int, statistic: Statistic, own: IntArray, masks: BoolArray) -> FloatArray:
    """Return (split,) test means; see drawn_moments."""
    worth = np.asarray(statistic.value, dtype=np.float64)
    order = np.argsort(own)
    means = np.empty(len(masks))
    for number, calibrates in enumerate(masks):
        places = np.flatnonzero(calibrates[order])
        p = places[k - 1] if k <= places.size else own.size
        hits = (statistic.table.rows[:, ~calibrates] <= p).sum(axis=0)
        means[number] = worth[hits].mean()
    return means
