"""Drawn splits: every statistic of every split at every alpha, by counting test items along the sorted hits.

Hits are sorted once per run and scorer. Eight splits then share one pass: an item carries eight bytes, 1 where it is tested, and adding
them up along the hits as 64-bit words counts eight splits at a time (16 additions cannot carry from one byte to the next). The optional
numba kernel counts the same integers.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from analyzer.arrays import BoolArray, FloatArray, IntArray
from analyzer.law import Moments, Statistics

LANES, BLOCK = 8, 16


class Sorted(NamedTuple):
    """Items in the order of their hits.

    by_hit  : (place in block, row and block) item whose hit comes next; each row is padded with N to whole blocks of 16.
    reached : (row, p) number of hits at threshold rank p, p from 0 to N.
    by_own  : (rank,) item with that answer score.
    """

    by_hit: IntArray
    reached: IntArray
    by_own: IntArray


def drawn_values(statistics: Statistics, own: IntArray, masks: BoolArray, ks: Sequence[int], *, numba: bool | None = None) -> FloatArray:
    """Return (split, alpha, statistic) test means over drawn splits.

    own   : (item,) rank of each item's answer score.  masks : (split, item) true where an item calibrates, equally many in each split.
    ks    : (alpha,) 1-based rank of the threshold among the calibration scores; above their number it is +inf.
    numba : True asks for the compiled kernel, False for numpy; None takes the compiled one where numba is installed.
    """
    hits = _sort_hits(statistics, own)
    rank_of = np.minimum(np.asarray(ks), int(masks[0].sum()) + 1) - 1
    count = _kernel(numba)
    counts = count(hits.by_hit, hits.reached, hits.by_own, masks, rank_of)
    n_tested = own.size - int(masks[0].sum())
    return np.asarray(statistics.start + np.einsum("sra,tr->sat", counts, statistics.steps) / n_tested)


def over_splits(values: FloatArray) -> Moments:
    """Return mean and sd over the first axis; the sd of a single split is NaN."""
    sd = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(values.shape[1:], math.nan)
    return Moments(values.mean(axis=0), sd)


def count_hits(by_hit: IntArray, reached: IntArray, by_own: IntArray, masks: BoolArray, rank_of: IntArray) -> IntArray:
    """Return (split, row, alpha) tested items with a hit at the threshold; the arrays are those of `Sorted`, rank_of is 0-based."""
    n_rows, n_blocks = len(reached), by_hit.shape[1]
    counts = np.empty((len(masks), n_rows, len(rank_of)), dtype=np.int64)
    within = np.zeros((BLOCK + 1, n_blocks + 1), dtype=np.uint64)
    before = np.zeros((n_blocks + 1, LANES), dtype=np.int64)
    starts = np.arange(n_rows)[:, None] * (n_blocks // n_rows)
    for first in range(0, len(masks), LANES):
        chunk = masks[first : first + LANES]
        np.cumsum(_lanes(chunk)[by_hit], axis=0, out=within[1:, :-1])
        np.cumsum(within[BLOCK, :-1].view(np.uint8).reshape(-1, LANES), axis=0, out=before[1:])
        for lane, calibrates in enumerate(chunk):
            p = np.append(np.flatnonzero(calibrates[by_own]), len(by_own))[rank_of]
            block, rest = np.divmod(reached[:, p], BLOCK)
            block += starts
            counts[first + lane] = before[block, lane] - before[starts, lane] + _lane(within, lane)[rest, block]
    return counts


def _lanes(masks: BoolArray) -> IntArray:
    """Words (item,) whose byte `lane` is 1 where that split tests the item; one more for the padding, 0."""
    tested = np.zeros((masks.shape[1] + 1, LANES), dtype=np.uint8)
    tested[:-1, : len(masks)] = ~masks.T
    return tested.view(np.uint64)[:, 0]


def _lane(words: IntArray, lane: int) -> IntArray:
    return words.view(np.uint8).reshape(*words.shape, LANES)[..., lane]


def _sort_hits(statistics: Statistics, own: IntArray) -> Sorted:
    rows, n_items = statistics.table.rows, own.size
    by_hit = np.full((len(rows), -(-n_items // BLOCK) * BLOCK), n_items, dtype=np.int64)
    by_hit[:, :n_items] = np.argsort(rows, axis=1, kind="stable")
    blocks = np.ascontiguousarray(by_hit.reshape(-1, BLOCK).T)
    return Sorted(blocks, statistics.table.enter[:, : n_items + 1].cumsum(axis=1), np.argsort(own))


def _kernel(numba: bool | None) -> Callable[..., IntArray]:
    if numba is False:
        return count_hits
    try:
        from analyzer.drawn_numba import count_hits as compiled
    except ImportError:
        if numba:
            raise
        return count_hits
    kernel: Callable[..., IntArray] = compiled  # untyped where numba is missing
    return kernel
