"""Random draws that depend on what they are for and nothing else: SplitMix64 (Steele, Lea & Flood 2014) as a counter-based hash.

One uniform draw per item from its item_id, the same for every run, scorer and machine; and the words from which splits are drawn.
"""

import numpy as np
from numpy.typing import NDArray

from analyzer.arrays import FloatArray, IntArray

TWO_53 = 2.0**-53
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def item_uniform(item_id: IntArray) -> FloatArray:
    """Return (item,) draws in [0, 1): the top 53 bits of the hash of item_id."""
    return np.asarray(mix(item_id.astype(np.uint64)) >> np.uint64(11), dtype=np.float64) * TWO_53


def random_words(seeds: IntArray, count: int, stream: int = 0) -> NDArray[np.uint64]:
    """Return (seed, count) random 64-bit words; streams of one seed are independent."""
    origin = mix(mix(seeds.astype(np.uint64)) + np.uint64(stream))
    return mix(origin[:, None] + np.arange(count, dtype=np.uint64) * GOLDEN)


def mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the hash of 64-bit words."""
    z = z + GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
