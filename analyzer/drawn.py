"""Drawn splits: every statistic of every split at every alpha, by counting test items along the sorted hits.

Hits are sorted once per run and scorer. A split then is a bit mask: gathered in that order, packed 64 to a word and counted, so that the
number of tested items among the first x hits is one prefix sum and one partial word. The optional numba kernel counts the same integers.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from analyzer.arrays import BoolArray, FloatArray, IntArray
from analyzer.law import Moments, Statistics

WORD = 64
LOW_BITS = (np.uint64(1) << np.arange(WORD, dtype=np.uint64)) - np.uint64(1)


class Sorted(NamedTuple):
    """Items in the order of their hits.

    by_hit : (row, place) item whose hit comes next; padded with N to whole words.
    reached: (row, p) number of hits at threshold rank p, p from 0 to N.
    by_own : (rank,) item with that answer score.
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
    n_rows, width = by_hit.shape
    counts = np.empty((len(masks), n_rows, len(rank_of)), dtype=np.int64)
    starts = np.arange(n_rows)[:, None] * width
    flat = by_hit.ravel()
    tested = np.zeros(masks.shape[1] + 1, dtype=np.bool_)
    for split, calibrates in enumerate(masks):
        np.logical_not(calibrates, out=tested[:-1])
        p = np.append(np.flatnonzero(calibrates[by_own]), len(by_own))[rank_of]
        counts[split] = _prefix_counts(tested[flat], starts, starts + reached[:, p])
    return counts


def _prefix_counts(bits: BoolArray, starts: IntArray, ends: IntArray) -> IntArray:
    words = np.packbits(bits, bitorder="little").view(np.uint64)
    total = np.append(0, np.bitwise_count(words).cumsum(dtype=np.int64))
    words = np.append(words, np.uint64(0))
    partial = np.bitwise_count(words[ends // WORD] & LOW_BITS[ends % WORD]).astype(np.int64)
    return np.asarray(total[ends // WORD] + partial - total[starts // WORD])


def _sort_hits(statistics: Statistics, own: IntArray) -> Sorted:
    rows, n_items = statistics.table.rows, own.size
    by_hit = np.full((len(rows), -(-n_items // WORD) * WORD), n_items, dtype=np.int32)
    by_hit[:, :n_items] = np.argsort(rows, axis=1, kind="stable")
    return Sorted(by_hit, statistics.table.enter[:, : n_items + 1].cumsum(axis=1), np.argsort(own))


def _kernel(numba: bool | None) -> Callable[..., IntArray]:
    if numba is False:
        return count_hits
    try:
        from analyzer.drawn_numba import count_hits as compiled
    except ImportError:
        if numba:
            raise
        return count_hits
    return compiled
