"""Prediction sets where an API returned only its top log-probabilities: bounds on every score from the known values.

A missing option's log-probability is at most the smallest one returned, and has no lower limit. Each scorer is a monotone function of the
unknown probabilities, so its smallest and largest score occur at their two extremes. Where a score has several terms, the bounds of the
terms are added; the sum may be wider than necessary, but is never too narrow.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from analyzer.stats.arrays import BoolArray, FloatArray, IntArray
from schemas.errors import UsageError

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
    Raises UsageError for a scorer that is not in BOUNDS.
    """
    if scorer not in BOUNDS:
        raise UsageError(
            f"scorer {scorer!r} has no bounds for missing log-probabilities; request the log-probability of every option, calibrate with "
            f"one of {', '.join(BOUNDS)}, or add the scorer to BOUNDS in analyzer/predictor/partial.py"
        )
    low, high = BOUNDS[scorer](_open(values, missing, at_most), parameters)
    room = 0.0 if scorer == "topk" else ROUNDING  # ranks are whole numbers
    return Between(low - room, high + room)


def least_top_prob(values: FloatArray, missing: BoolArray, at_most: float) -> float:
    """Return a lower bound of the largest probability, whatever the missing values are."""
    return float(_open(values, missing, at_most).top.low[0]) - ROUNDING


def _open(values: FloatArray, missing: BoolArray, at_most: float) -> Open:
    """Return the bounds. A power is a probability divided by that of the likeliest option; a missing option's is at most `ceiling`."""
    top = float(np.nanmax(values))
    power, ceiling = np.exp(np.where(missing, -np.inf, values - top)), float(np.exp(at_most - top))
    is_known, n_missing = ~missing, int(missing.sum())
    total, most = float(np.sort(power).sum()), n_missing * ceiling  # of the known options, and at most of the missing ones
    order = np.argsort(-np.where(missing, -np.inf, values), kind="stable")
    rank = np.empty(values.size, dtype=np.int64)
    rank[order] = np.arange(1, values.size + 1)
    is_level = is_known & (power <= ceiling)  # a missing option may be at least as likely, and rank before it
    below = np.array([power[is_known & (rank > one)].sum() for one in rank])
    prob = Between(np.where(missing, 0.0, power / (total + most)), np.where(missing, ceiling / (total + ceiling), power / total))
    less = Between(
        np.where(missing, 0.0, below / np.where(is_level, total + most, total)),
        np.where(missing, (n_missing - 1) * ceiling + power[is_level].sum(), below + most) / (total + most),
    )
    least = int(is_known.sum()) - int(is_level.sum())
    last_rank = np.where(missing, values.size, rank + n_missing * is_level)
    ranks = Between(np.where(missing, least + 1, rank).astype(float), last_rank.astype(float))
    margin = _margin(power, is_known, rank, ceiling)
    largest = np.full(values.size, 1.0)  # exp(0), the power of the likeliest option
    return Open(prob, less, ranks, Between(largest / (total + most), largest / total), margin)


def _margin(power: FloatArray, is_known: BoolArray, rank: IntArray, ceiling: float) -> Between:
    """Return bounds of the largest probability of another option minus the option's own; `power` and `ceiling` as in `_open`."""
    total = float(np.sort(power).sum())
    most = int((~is_known).sum()) * ceiling
    second = float(power[is_known & (rank == 2)].sum())  # 0 where only one is known
    first = is_known & (rank == 1)
    low = np.where(is_known, np.where(first, (second - power) / total, (1 - power) / (total + most)), (1 - ceiling) / (total + most))
    high = np.where(is_known, np.where(first, (max(second, ceiling) - power) / (total + most), (1 - power) / total), 1 / total)
    return Between(low, high)


def _lac(quantities: Open, parameters: Mapping[str, float]) -> Between:
    return Between(1 - quantities.prob.high, 1 - quantities.prob.low)


def _aps(quantities: Open, parameters: Mapping[str, float]) -> Between:
    return Between(1 - quantities.less.high, 1 - quantities.less.low)


def _raps(quantities: Open, parameters: Mapping[str, float]) -> Between:
    aps = _aps(quantities, parameters)
    low, high = (parameters["penalty"] * np.maximum(one - parameters["k_reg"], 0) for one in quantities.rank)
    return Between(aps.low + low, aps.high + high)


def _saps(quantities: Open, parameters: Mapping[str, float]) -> Between:
    def score(top: FloatArray, rank: FloatArray) -> FloatArray:
        return np.where(rank == 1, top / 2, top + (rank - 1.5) * parameters["weight"])

    return Between(score(quantities.top.low, quantities.rank.low), score(quantities.top.high, quantities.rank.high))


def _margin_score(quantities: Open, parameters: Mapping[str, float]) -> Between:
    return quantities.margin


def _topk(quantities: Open, parameters: Mapping[str, float]) -> Between:
    return quantities.rank


BOUNDS: dict[str, Callable[[Open, Mapping[str, float]], Between]] = {
    "lac": _lac,
    "aps": _aps,
    "raps": _raps,
    "saps": _saps,
    "margin": _margin_score,
    "topk": _topk,
}
