"""Random draws that depend on what they are for and nothing else: SplitMix64 (Steele, Lea & Flood 2014) as a counter-based hash.

One uniform draw per item from its item_id, the same for every run, scorer and machine; and the words from which splits are drawn.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer.stats.arrays import FloatArray, IntArray

TWO_53 = 2.0**-53
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Words(NamedTuple):
    """Random words of several seeds in one array: `word` (word,), and the index of each word's seed, `row` (word,), ascending."""

    row: IntArray
    word: NDArray[np.uint64]


def item_uniform(item_id: IntArray) -> FloatArray:
    """Return (item,) draws in [0, 1): the top 53 bits of the hash of item_id."""
    return np.asarray(mix(item_id.astype(np.uint64)) >> np.uint64(11), dtype=np.float64) * TWO_53


def random_words(seeds: IntArray, count: int, stream: int = 0) -> NDArray[np.uint64]:
    """Return (seed, count) random 64-bit words; streams of one seed are independent."""
    return mix(_origin(seeds, stream)[:, None] + np.arange(count, dtype=np.uint64) * GOLDEN)


def random_rows(seeds: IntArray, counts: IntArray, stream: int = 0) -> Words:
    """Return the first counts[i] words of seed i, seeds and counts (seed,); the same words as `random_words`."""
    row = np.repeat(np.arange(seeds.size), counts)
    number = np.arange(row.size) - (counts.cumsum() - counts)[row]
    return Words(row, mix(_origin(seeds, stream)[row] + number.astype(np.uint64) * GOLDEN))


def _origin(seeds: IntArray, stream: int) -> NDArray[np.uint64]:
    return mix(mix(seeds.astype(np.uint64)) + np.uint64(stream))


def mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the hash of 64-bit words."""
    z = z + GOLDEN
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z ^= z >> np.uint64(shift)
        z *= np.uint64(factor)
    z ^= z >> np.uint64(31)
    return z
