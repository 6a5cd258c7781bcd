"""Drawn splits: every statistic of every split at every alpha, by counting test items along the sorted hits.

Hits are sorted once per run and scorer. Eight splits are then counted in one pass: each item has eight bytes, one per split, which are 1 if
the split tests the item; adding them along the hits as 64-bit words counts eight splits at a time (128 additions cannot carry from one byte
into the next). The optional numba kernel returns the same counts.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from analyzer.conformal.hits import BLOCK, LANES, SortedHits
from analyzer.conformal.split_law import SetStatistics
from analyzer.conformal.split_moments import Moments
from analyzer.stats.arrays import BoolArray, FloatArray, IntArray

SHORT = 2**16  # smaller ranks are sorted as 16-bit integers, for which numpy uses a radix sort


def drawn_values(
    statistics: SetStatistics, item_rank: IntArray, masks: BoolArray, ks: Sequence[int], *, numba: bool | None = None
) -> FloatArray:
    """Return (split, alpha, statistic) test means over drawn splits.

    item_rank : (item,) rank of each item's answer score.
    masks : (split, item) true where an item calibrates, the same number in each split.
    ks : (alpha,) 1-based rank of the threshold among the calibration scores; a rank above their number means +inf.
    numba : True uses the compiled kernel, False numpy; None uses the compiled kernel if numba is installed.
    """
    hits = _sort_hits(statistics, item_rank)
    rank_of = np.minimum(np.asarray(ks), int(masks[0].sum()) + 1) - 1
    counts = _kernel(numba)(hits, masks, rank_of)
    n_tested = item_rank.size - int(masks[0].sum())
    return np.asarray(statistics.start + np.einsum("sra,tr->sat", counts, statistics.steps) / n_tested)


def over_splits(values: FloatArray) -> Moments:
    """Return mean and sd over the first axis; the sd of a single split is NaN."""
    sd = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(values.shape[1:], math.nan)
    return Moments(values.mean(axis=0), sd)


def count_hits(hits: SortedHits, masks: BoolArray, rank_of: IntArray) -> IntArray:
    """Return (split, row, alpha) tested items with a hit at the threshold; rank_of (alpha,) is 0-based."""
    blocks = np.ascontiguousarray(hits.by_hit.reshape(-1, BLOCK).T)
    n_rows, n_items, n_blocks = len(hits.reached), masks.shape[1], blocks.shape[1]
    by_rank = hits.by_rank[:n_items]
    counts = np.empty((len(masks), n_rows, len(rank_of)), dtype=np.int64)
    within = np.zeros((BLOCK + 1, n_blocks + 1), dtype=np.uint64)
    before = np.zeros((n_blocks + 1, LANES), dtype=np.int64)
    starts = np.arange(n_rows)[:, None] * (n_blocks // n_rows)
    for first in range(0, len(masks), LANES):
        chunk = masks[first : first + LANES]
        np.cumsum(_lanes(chunk)[blocks], axis=0, out=within[1:, :-1])
        np.cumsum(within[BLOCK, :-1].view(np.uint8).reshape(-1, LANES), axis=0, out=before[1:])
        for lane, calibrates in enumerate(chunk):
            p = np.append(np.flatnonzero(calibrates[by_rank]), n_items)[rank_of]
            block, rest = np.divmod(hits.reached[:, p], BLOCK)
            block += starts
            counts[first + lane] = before[block, lane] - before[starts, lane] + _lane(within, lane)[rest, block]
    return counts


def _lanes(masks: BoolArray) -> IntArray:
    """Words (item,) whose byte `lane` is 1 if that split tests the item; one more word, 0, for the padding."""
    tested = np.zeros((masks.shape[1] + 1, LANES), dtype=np.uint8)
    tested[:-1, : len(masks)] = ~masks.T
    return tested.view(np.uint64)[:, 0]


def _lane(words: IntArray, lane: int) -> IntArray:
    return words.view(np.uint8).reshape(*words.shape, LANES)[..., lane]


def _sort_hits(statistics: SetStatistics, item_rank: IntArray) -> SortedHits:
    rows, n_items = statistics.table.rows, item_rank.size
    kind = np.uint16 if n_items + 1 < SHORT else np.int64
    order = np.full((len(rows) + 1, -(-n_items // BLOCK) * BLOCK), n_items, dtype=np.uint32)
    order[:-1, :n_items] = np.argsort(rows.astype(kind), axis=1, kind="stable")
    order[-1, item_rank] = np.arange(n_items)
    return SortedHits(order[:-1], statistics.table.enter[:, : n_items + 1].cumsum(axis=1), order[-1])


def _kernel(numba: bool | None) -> Callable[[SortedHits, BoolArray, IntArray], IntArray]:
    if numba is False:
        return count_hits
    try:
        from analyzer.conformal.drawn_numba import count_hits as compiled
    except ImportError:
        if numba:
            raise
        return count_hits
    return lambda hits, masks, rank_of: compiled(*hits, masks, rank_of)
