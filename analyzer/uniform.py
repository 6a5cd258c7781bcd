"""One uniform draw per item, from its item_id: the same for every run, scorer and machine."""

import numpy as np

from analyzer.arrays import FloatArray, IntArray

TWO_53 = 2.0**-53


def item_uniform(item_id: IntArray) -> FloatArray:
    """Return (item,) draws in [0, 1): the finaliser of SplitMix64 (Steele, Lea & Flood 2014) over item_id, top 53 bits."""
    z = item_id.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray((z ^ (z >> np.uint64(31))) >> np.uint64(11), dtype=np.float64) * TWO_53
