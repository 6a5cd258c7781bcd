"""Hits in sorted order, the data that both kernels for drawn splits count: the numpy one and the one compiled with numba."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer.stats.arrays import IntArray

LANES, BLOCK = 8, 128  # splits that share a 64-bit word; items whose counts cannot carry from one byte of it to the next


class SortedHits(NamedTuple):
    """Items in the order of their hits.

    by_hit  : (row, position) items in the order of their hits; each row is padded with N to whole blocks of 128.
    reached : (row, p) number of hits at threshold rank p, p from 0 to N.
    by_rank : (rank,) item whose answer score has that rank, padded like a row of hits.
    """

    by_hit: NDArray[np.uint32]
    reached: IntArray
    by_rank: NDArray[np.uint32]
