"""Scores as ranks: conformal prediction only uses the order of scores relative to the scores of the answers.

Sort the N answer scores once. The threshold is then always "the score at rank p" (0-based), or p = N for +inf, and an option is
in the set if and only if its own rank is <= p, which is `score <= threshold` without rounding.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal

import numpy as np

from analyzer.stats.arrays import FloatArray, IntArray
from analyzer.stats.probs import rising_order, top_option

Empty = Literal["keep", "top1"]


def threshold_rank(n_calibration: int, alpha: Fraction) -> int:
    """Return k = ceil((n + 1)(1 - alpha)) in exact arithmetic, 1-based; n + 1 stands for +inf (every set full).

    Source : Angelopoulos & Bates 2021, arXiv:2107.07511, section 1.
    """
    return -((n_calibration + 1) * (alpha.numerator - alpha.denominator) // alpha.denominator)  # in integers, since Fractions are slow


@dataclass(frozen=True)
class Ranks:
    """Ranks of one run under one scorer.

    item_rank : (item,) rank of the item's calibration score among all N, a permutation; ties in item order.
    option : (option, item) first rank whose score is >= the option's score; N above all of them; N + 1 where there is no option.
    answer : (item,) the same for the answer's score.
    rising : (rank,) the calibration scores in rising order.
    first  : (rank,) first rank whose calibration score equals the one at this rank; at rank N, which stands for +inf, it is N.
    """

    item_rank: IntArray
    option: IntArray
    answer: IntArray
    rising: FloatArray
    first: IntArray

    @property
    def n_items(self) -> int:
        """Number of items that may calibrate, N."""
        return self.item_rank.size

    @cached_property
    def ties(self) -> IntArray:
        """Number of other calibration scores that equal the one at each rank, (rank,); 0 at rank N."""
        return np.bincount(self.first)[self.first] - 1

    @cached_property
    def n_in_sets(self) -> IntArray:
        """Number of options in the sets of all items together if the threshold has this rank, (rank,) for ranks 0 to N + 1."""
        return np.bincount(self.option.ravel(), minlength=self.n_items + 2).cumsum()


def rank_scores(
    scores: FloatArray, answer: IntArray, probs: FloatArray, empty: Empty = "keep", calibration: FloatArray | None = None
) -> Ranks:
    """Return the ranks of (item, option) scores.

    answer      : (item,) index of the correct option.
    empty       : "top1" puts the most likely option into every set, so its rank is 0; calibration scores do not change.
    calibration : (calibration item,) answer scores to calibrate on, from another run or other items; None means those of these items.
    """
    items = np.arange(len(answer))
    calibrating = scores[items, answer] if calibration is None else calibration
    n_items = calibrating.size
    order = rising_order(calibrating)
    item_rank = np.empty(n_items, dtype=np.int64)
    item_rank[order] = np.arange(n_items)
    rising = calibrating[order]
    option = _number_below(rising, scores.T.ravel()).reshape(scores.T.shape)
    option[np.isnan(probs.T)] = n_items + 1
    if empty == "top1":
        option[top_option(probs), items] = 0
    return Ranks(item_rank, option, option[answer, items], rising, np.append(np.searchsorted(rising, rising), n_items))


def _number_below(rising: FloatArray, values: FloatArray) -> IntArray:
    """Return for each of the values how many of `rising` are below it; NaN has any number.

    It is `np.searchsorted(rising, values)`, in half of its time: one sort of the values instead of a search for each.
    """
    order = rising_order(values)
    first_above = np.searchsorted(values[order], rising, side="right")  # index, among the sorted values, of the first that is above
    number = np.empty(values.size, dtype=np.int64)
    number[order] = np.bincount(first_above, minlength=values.size + 1)[:-1].cumsum()
    return number
