"""Prediction sets where an API returned only its top log-probabilities: bounds on every score from the known values.

A missing option's log-probability is at most the smallest one returned, and has no lower limit. Each scorer is a monotone function of the
unknown probabilities, so its smallest and largest score occur at their two extremes. Where a score has several terms, the bounds of the
terms are added; the sum may be wider than necessary, but is never too narrow.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from analyzer.stats.arrays import BoolArray, FloatArray, IntArray

ROUNDING = 1e-12  # a score this close to the threshold counts as undecided


class Partial(NamedTuple):
    """The prediction set of a question with missing values.

    set      : letters of every option that may be in the set, so that coverage holds whatever the missing values are.
    certain  : letters of the options that are in the set whatever the missing values are.
    exact    : whether the two are equal, so that the missing values cannot change the set.
    top_prob : lower bound of the largest probability.
    """

    set: tuple[str, ...]
    certain: tuple[str, ...]
    exact: bool
    top_prob: float


class Between(NamedTuple):
    """Lower and upper bound of a quantity for each option, (option,) each."""

    low: FloatArray
    high: FloatArray


class Open(NamedTuple):
    """Bounds on the quantities of one question that the missing values leave open.

    prob : each option's probability.  less : total probability of all less likely options.  rank : 1 for the likeliest option.
    top  : the largest probability.  margin : the largest probability of another option minus the option's own.
    """

    prob: Between
    less: Between
    rank: Between
    top: Between
    margin: Between


def score_bounds(values: FloatArray, missing: BoolArray, at_most: float, scorer: str, parameters: Mapping[str, float]) -> Between:
    """Return the lower and upper bound of every option's score, (option,) each, widened for rounding unless scores are ranks.

    values : (option,) log-probabilities, none of them below `at_most`; NaN where missing.
    """
    low, high = BOUNDS[scorer](_open(values, missing, at_most), parameters)
    room = 0.0 if scorer == "topk" else ROUNDING  # ranks are whole numbers
    return Between(low - room, high + room)


def least_top_prob(values: FloatArray, missing: BoolArray, at_most: float) -> float:
    """Return a lower bound of the largest probability, whatever the missing values are."""
    return float(_open(values, missing, at_most).top.low[0]) - ROUNDING


def _open(values: FloatArray, missing: BoolArray, at_most: float) -> Open:
    top = float(np.nanmax(values))
    power, x = np.exp(np.where(missing, -np.inf, values - top)), float(np.exp(at_most - top))
    known, m = ~missing, int(missing.sum())
    total, most = float(np.sort(power).sum()), m * x
    order = np.argsort(-np.where(missing, -np.inf, values), kind="stable")
    rank = np.empty(values.size, dtype=np.int64)
    rank[order] = np.arange(1, values.size + 1)
    level = known & (power <= x)  # a missing option may be at least as likely, and rank before it
    below = np.array([power[known & (rank > one)].sum() for one in rank])
    prob = Between(np.where(missing, 0.0, power / (total + most)), np.where(missing, x / (total + x), power / total))
    less = Between(
        np.where(missing, 0.0, below / np.where(level, total + most, total)),
        np.where(missing, ((m - 1) * x + power[level].sum()) / (total + most), (below + most) / (total + most)),
    )
    least = int(known.sum()) - int(level.sum())
    ranks = Between(np.where(missing, least + 1, rank).astype(float), np.where(missing, values.size, rank + m * level).astype(float))
    margin = _margin(power, known, rank, x)
    largest = np.full(values.size, 1.0)  # exp(0), the power of the likeliest option
    return Open(prob, less, ranks, Between(largest / (total + most), largest / total), margin)


def _margin(power: FloatArray, known: BoolArray, rank: IntArray, x: float) -> Between:
    """Bounds of the largest probability of another option minus the option's own."""
    total = float(np.sort(power).sum())
    most = int((~known).sum()) * x
    second = float(power[known & (rank == 2)].sum())  # 0 where only one is known
    first = known & (rank == 1)
    low = np.where(known, np.where(first, (second - power) / total, (1 - power) / (total + most)), (1 - x) / (total + most))
    high = np.where(known, np.where(first, (max(second, x) - power) / (total + most), (1 - power) / total), 1 / total)
    return Between(low, high)


def _lac(found: Open, parameters: Mapping[str, float]) -> Between:
    return Between(1 - found.prob.high, 1 - found.prob.low)


def _aps(found: Open, parameters: Mapping[str, float]) -> Between:
    return Between(1 - found.less.high, 1 - found.less.low)


def _raps(found: Open, parameters: Mapping[str, float]) -> Between:
    aps = _aps(found, parameters)
    low, high = (parameters["penalty"] * np.maximum(one - parameters["k_reg"], 0) for one in found.rank)
    return Between(aps.low + low, aps.high + high)


def _saps(found: Open, parameters: Mapping[str, float]) -> Between:
    def score(top: FloatArray, rank: FloatArray) -> FloatArray:
        return np.where(rank == 1, top / 2, top + (rank - 1.5) * parameters["weight"])

    return Between(score(found.top.low, found.rank.low), score(found.top.high, found.rank.high))


def _margin_score(found: Open, parameters: Mapping[str, float]) -> Between:
    return found.margin


def _topk(found: Open, parameters: Mapping[str, float]) -> Between:
    return found.rank


BOUNDS: dict[str, Callable[[Open, Mapping[str, float]], Between]] = {
    "lac": _lac,
    "aps": _aps,
    "raps": _raps,
    "saps": _saps,
    "margin": _margin_score,
    "topk": _topk,
}
