"""Guarantees with probability 1 - delta over the calibration items, and for the next m questions.

"Coverage is 90 %" holds on average over calibration sets; a single set of 500 items may well give 87 %. This module computes the
threshold that covers 1 - alpha for all but a share delta of calibration sets, how many of the next m questions will be covered or
answered right, and the largest share of questions that a model may answer alone at a given risk. All results are exact for exchangeable
items and follow from the binomial distribution and its beta mixtures.
"""

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from scipy.special import bdtr, betaln

from analyzer.stats.arrays import BoolArray, FloatArray, IntArray
from analyzer.stats.mean_bounds import mean_interval

SURE = 1 / (1 + np.exp(-np.arange(-3.3, 13.8, 0.1)))  # confidence thresholds to test, fixed before any item is seen


class Answered(NamedTuple):
    """Items that a model may answer alone: those with confidence of at least `threshold`, which is +inf if none can be certified.

    share : share of the items that are answered.  wrong : observed share of wrong answers among them; NaN if none are answered.
    """

    threshold: float
    share: float
    wrong: float


def sure_rank(n_calibration: int, alpha: Fraction, delta: float) -> int:
    """Return the rank k, 1-based, of the calibration score that covers at least 1 - alpha for all but a share delta of calibration sets.

    Given the calibration items, coverage is Beta(k, n + 1 - k), or larger with ties. Returns n + 1 (every set is full) if no rank suffices.
    Source : Vovk 2012, arXiv:1209.2673, proposition 2b.
    """
    ranks = np.arange(1, n_calibration + 1)
    enough = np.flatnonzero(bdtr(ranks - 1, n_calibration, 1 - float(alpha)) >= 1 - delta)
    return int(ranks[enough[0]]) if enough.size else n_calibration + 1


def least_calibration(alpha: Fraction, delta: float) -> int:
    """Return the smallest number of calibration items for which `sure_rank` gives a finite threshold: (1 - alpha) ** n <= delta."""
    return math.ceil(math.log(delta) / math.log(1 - float(alpha)) - 1e-12)


def beta_binomial(n_next: int, a: float, b: float) -> FloatArray:
    """Return (count,) the probability of each number of successes in n_next trials, whose shared success probability is Beta(a, b)."""
    if a == 0 or b == 0:
        return np.asarray(np.eye(1, n_next + 1, n_next if b == 0 else 0)[0])
    count = np.arange(n_next + 1)
    log = betaln(count + a, n_next - count + b) - betaln(count + 1, n_next - count + 1)
    weights = np.exp(log - log.max())
    return np.asarray(weights / weights.sum())


def next_coverage(n_calibration: int, k: int, n_next: int, level: float) -> tuple[int, int]:
    """Return how many of the next n_next answers will be in their sets, at least and at most, with probability `level` or more.

    k : rank of the threshold; n + 1 means that every set is full.  Source : Vovk 2012, proposition 2a, mixed over the binomial.
    """
    law = beta_binomial(n_next, k, n_calibration + 1 - k)
    return _middle(law, law, level)


def next_right(n_right: int, n_items: int, n_next: int, level: float) -> tuple[int, int]:
    """Return how many of the next n_next answers will be right, at least and at most, with probability `level` or more.

    n_right of n_items answers were right so far.
    Source : Thatcher 1964, JRSS B 26: the exact hypergeometric limits are beta-binomial ones with one more item on either side.
    """
    n_wrong = n_items - n_right
    return _middle(beta_binomial(n_next, n_right, n_wrong + 1), beta_binomial(n_next, n_right + 1, n_wrong), level)


def least_abstention(correct: BoolArray, risk: float, tail: float) -> tuple[float, float, float]:
    """Return the smallest share of questions that must stay unanswered for P(wrong | answered) <= risk, and its lower and upper bound.

    correct : (item,) bool.  With error rate e this share is (e - risk) / (1 - risk), even for a model that knows which answers are wrong.
    """
    low, high = mean_interval(~correct, 0.0, 1.0, tail)
    error = float((~correct).mean()) if correct.size else math.nan
    value, least, most = (max((e - risk) / (1 - risk), 0.0) for e in (error, low, high))
    return value, least, most


def answered_alone(confidence: FloatArray, correct: BoolArray, risk: float, delta: float) -> Answered:
    """Return the largest share of items for which P(wrong | answered) <= risk is certified, with error probability at most delta.

    confidence : (item,) in [0, 1].  correct : (item,) bool.
    The thresholds of a fixed grid are tested by the exact binomial test, from the highest down until one fails. Given the number of items
    above each threshold, the tests are exact. Tests start at several thresholds, each with its part of delta: the first with enough items
    to pass at all, and those with four times, 16 times, ... as many, so that one wrong answer among the most confident items does not end
    all tests.
    Source : Angelopoulos, Bates, Candes, Jordan & Lei 2021, arXiv:2110.01052, fixed sequence testing with several starts.
    """
    grid = SURE[::-1]
    answered, wrong = _at_least(confidence, grid), _at_least(confidence[~correct], grid)
    starts = _starts(answered, confidence.size, risk, delta)
    passed = bdtr(wrong, answered, risk) <= delta / max(len(starts), 1)
    best = max((_last_passed(passed, start) for start in starts), default=-1)
    if best < 0:
        return Answered(math.inf, 0.0, math.nan)
    return Answered(float(grid[best]), answered[best] / confidence.size, wrong[best] / answered[best])


def _at_least(values: FloatArray, thresholds: FloatArray) -> IntArray:
    return values.size - np.searchsorted(np.sort(values), thresholds)


def _starts(answered: IntArray, n_items: int, risk: float, delta: float) -> list[int]:
    """Indices in the grid where tests start. Their number depends on the number of items only, their positions on the counts only."""

    def needed(n_parts: int) -> float:
        return math.log(delta / n_parts) / math.log(1 - risk)  # number of items, all answered right, that pass at this part of delta

    n_starts = 1
    while needed(n_starts + 1) * 4**n_starts <= n_items:
        n_starts += 1
    counts = needed(n_starts) * 4.0 ** np.arange(n_starts)
    return sorted({int(index) for index in np.searchsorted(answered, counts) if index < answered.size})


def _last_passed(passed: BoolArray, start: int) -> int:
    """The index of the last test before the first failed one, from `start` on; -1 if the test at `start` fails."""
    failed = np.flatnonzero(~passed[start:])
    last = start + int(failed[0]) - 1 if failed.size else passed.size - 1
    return last if last >= start else -1


def _middle(law_low: FloatArray, law_high: FloatArray, level: float) -> tuple[int, int]:
    tail = (1 - level) / 2
    low = int(np.searchsorted(law_low.cumsum(), tail * (1 + 1e-12), side="right"))
    high = law_high.size - 1 - int(np.searchsorted(law_high[::-1].cumsum(), tail * (1 + 1e-12), side="right"))
    return low, high
