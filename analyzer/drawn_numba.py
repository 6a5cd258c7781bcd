"""The kernel of `analyzer.drawn` compiled with numba (the extra `fast`): the same integers, sooner.

Alphas are visited in the order of their thresholds, so that each row is one pass over its hits that stops once per alpha.
"""

import numpy as np
from numba import njit

from analyzer.arrays import BoolArray, IntArray


@njit(cache=True)
def count_hits(by_hit: IntArray, reached: IntArray, by_own: IntArray, masks: BoolArray, rank_of: IntArray) -> IntArray:
    """Return (split, row, alpha) tested items with a hit at the threshold; see analyzer.drawn.count_hits."""
    n_splits, n_items = masks.shape
    n_rows, n_alphas = len(by_hit), len(rank_of)
    counts = np.empty((n_splits, n_rows, n_alphas), dtype=np.int64)
    rising = np.argsort(rank_of)
    places = np.empty(n_items + 1, dtype=np.int64)
    tested = np.empty(n_items, dtype=np.uint8)
    for split in range(n_splits):
        n_calibration = 0
        for rank in range(n_items):
            calibrates = masks[split, by_own[rank]]
            places[n_calibration] = rank
            n_calibration += calibrates
        places[n_calibration] = n_items
        for item in range(n_items):
            tested[item] = not masks[split, item]
        for row in range(n_rows):
            hits, total, done = by_hit[row], 0, 0
            for alpha in rising:
                end = reached[row, places[rank_of[alpha]]]
                for place in range(done, end):
                    total += tested[hits[place]]
                done = max(done, end)
                counts[split, row, alpha] = total
    return counts
