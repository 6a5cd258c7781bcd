"""The kernel of `analyzer.drawn` compiled with numba (the extra `fast`): the same passes and the same integers, sooner."""

import numpy as np
from numba import njit

from analyzer.arrays import BoolArray, IntArray

LANES, BLOCK = 8, 16


@njit(cache=True)
def count_hits(by_hit: IntArray, reached: IntArray, by_own: IntArray, masks: BoolArray, rank_of: IntArray) -> IntArray:
    """Return (split, row, alpha) tested items with a hit at the threshold; see analyzer.drawn.count_hits."""
    n_splits, n_items = masks.shape
    n_rows, n_blocks = len(reached), by_hit.shape[1]
    counts = np.empty((n_splits, n_rows, len(rank_of)), dtype=np.int64)
    within = np.zeros((BLOCK + 1, n_blocks + 1), dtype=np.uint64)
    before = np.zeros((LANES, n_blocks + 1), dtype=np.int32)
    tested = np.zeros(n_items + 1, dtype=np.uint64)
    places = np.empty(n_items + 1, dtype=np.int64)
    for first in range(0, n_splits, LANES):
        n_lanes = min(LANES, n_splits - first)
        tested[:] = 0
        for lane in range(n_lanes):
            one = np.uint64(1) << np.uint64(8 * lane)
            for item in range(n_items):
                if not masks[first + lane, item]:
                    tested[item] += one
        for place in range(BLOCK):
            for block in range(n_blocks):
                within[place + 1, block] = within[place, block] + tested[by_hit[place, block]]
        for lane in range(n_lanes):
            total = np.int32(0)
            for block in range(n_blocks):
                total += np.int32((within[BLOCK, block] >> np.uint64(8 * lane)) & np.uint64(255))
                before[lane, block + 1] = total
        for lane in range(n_lanes):
            n_calibration = 0
            for rank in range(n_items):
                places[n_calibration] = rank
                n_calibration += masks[first + lane, by_own[rank]]
            places[n_calibration] = n_items
            for row in range(n_rows):
                start = row * (n_blocks // n_rows)
                for alpha in range(len(rank_of)):
                    end = reached[row, places[rank_of[alpha]]]
                    block = start + end // BLOCK
                    rest = (within[end % BLOCK, block] >> np.uint64(8 * lane)) & np.uint64(255)
                    counts[first + lane, row, alpha] = before[lane, block] - before[lane, start] + np.int64(rest)
    return counts
