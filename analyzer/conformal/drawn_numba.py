"""The kernel of `analyzer.conformal.drawn_splits` compiled with numba (the extra `fast`): the same counts, faster.

It handles one row of hits at a time, so that its counts (8 bytes per hit) stay in the processor's cache. The thresholds come from the same
counts along the ranks of the answers: the k-th calibration item is found by bisection instead of listing all calibration items.
"""

import numpy as np
from numba import njit

from analyzer.conformal.hits import BLOCK, LANES
from analyzer.stats.arrays import BoolArray, IntArray


@njit(cache=True)
def count_hits(by_hit: IntArray, reached: IntArray, by_rank: IntArray, masks: BoolArray, rank_of: IntArray) -> IntArray:
    """Return (split, row, alpha) tested items with a hit at the threshold; for the arrays see `analyzer.conformal.hits.Sorted`."""
    n_splits, n_items = masks.shape
    n_rows, n_alphas = len(reached), len(rank_of)
    counts = np.empty((n_splits, n_rows, n_alphas), dtype=np.int64)
    tested = np.zeros(n_items + 1, dtype=np.uint64)
    within = np.zeros(by_rank.size + 1, dtype=np.uint64)
    before = np.zeros((LANES, by_rank.size // BLOCK + 1), dtype=np.int64)
    p = np.empty((LANES, n_alphas), dtype=np.int64)
    for first in range(0, n_splits, LANES):
        n_lanes = min(LANES, n_splits - first)
        _load(masks[first : first + n_lanes], tested)
        _accumulate(by_rank, tested, within, before)
        for lane in range(n_lanes):
            for alpha in range(n_alphas):
                p[lane, alpha] = _rank(rank_of[alpha], lane, within, before, n_items)
        for row in range(n_rows):
            _accumulate(by_hit[row], tested, within, before)
            for lane in range(n_lanes):
                for alpha in range(n_alphas):
                    counts[first + lane, row, alpha] = _count(reached[row, p[lane, alpha]], lane, within, before)
    return counts


@njit(cache=True)
def _load(masks: BoolArray, tested: IntArray) -> None:
    """Set byte `lane` of every item's word to 1 if that split tests the item; the padding at the end stays 0."""
    tested[:] = 0
    for lane in range(len(masks)):
        shift = np.uint64(8 * lane)
        for item in range(masks.shape[1]):
            tested[item] |= np.uint64(not masks[lane, item]) << shift


@njit(cache=True)
def _accumulate(order: IntArray, tested: IntArray, within: IntArray, before: IntArray) -> None:
    """Count tested items along an order: `within` (position,) since the start of the block, one byte per lane; `before` (lane, block)."""
    for block in range(order.size // BLOCK):
        total = np.uint64(0)
        for position in range(block * BLOCK, (block + 1) * BLOCK):
            within[position] = total
            total += tested[order[position]]
        for lane in range(LANES):
            before[lane, block + 1] = before[lane, block] + np.int64((total >> np.uint64(8 * lane)) & np.uint64(255))


@njit(cache=True)
def _count(end: int, lane: int, within: IntArray, before: IntArray) -> int:
    """Return how many of the first `end` positions are tested; `within` is 0 at the end of all blocks."""
    return int(before[lane, end // BLOCK] + np.int64((within[end] >> np.uint64(8 * lane)) & np.uint64(255)))


@njit(cache=True)
def _rank(n_before: int, lane: int, within: IntArray, before: IntArray, n_items: int) -> int:
    """Return the position of the calibration item with `n_before` others before it; the number of items if there is none.

    The number of calibration items before a position is position - tested. Calibration items are a random sample, so the search starts at
    the block where they are expected.
    """
    n_blocks = before.shape[1] - 1
    n_calibration = n_items - before[lane, n_blocks]
    block = min(n_before * n_items // (n_calibration * BLOCK), n_blocks - 1)
    while block * BLOCK - before[lane, block] > n_before:
        block -= 1
    while block + 1 < n_blocks and (block + 1) * BLOCK - before[lane, block + 1] <= n_before:
        block += 1
    low, step = block * BLOCK, BLOCK
    while step > 1:
        step //= 2
        position = min(low + step, n_items)
        low = position if position - _count(position, lane, within, before) <= n_before else low
    return int(low)
