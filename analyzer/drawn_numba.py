"""The kernel of `analyzer.drawn` compiled with numba (the extra `fast`): the same integers, three times sooner."""

import numpy as np
from numba import njit

from analyzer.arrays import BoolArray, IntArray


@njit(cache=True)
def count_hits(by_hit: IntArray, reached: IntArray, by_own: IntArray, masks: BoolArray, rank_of: IntArray) -> IntArray:
    """Return (split, row, alpha) tested items with a hit at the threshold; see analyzer.drawn.count_hits."""
    n_splits, n_items = masks.shape
    n_rows, n_alphas = len(by_hit), len(rank_of)
    counts = np.empty((n_splits, n_rows, n_alphas), dtype=np.int64)
    places = np.empty(n_items + 1, dtype=np.int64)
    running = np.empty(n_items + 1, dtype=np.int32)
    tested = np.empty(n_items, dtype=np.int32)
    for split in range(n_splits):
        n_calibration = 0
        for rank in range(n_items):
            calibrates = masks[split, by_own[rank]]
            places[n_calibration] = rank
            n_calibration += calibrates
            tested[by_own[rank]] = 1 - calibrates
        places[n_calibration] = n_items
        for row in range(n_rows):
            total = np.int32(0)
            running[0] = 0
            for place in range(n_items):
                total += tested[by_hit[row, place]]
                running[place + 1] = total
            for alpha in range(n_alphas):
                counts[split, row, alpha] = running[reached[row, places[rank_of[alpha]]]]
    return counts
