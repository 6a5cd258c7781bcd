"""Is a change more than noise: McNemar's test, the paired t test, Holm's correction, and the smallest change that could be seen."""

import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

from scipy.special import bdtr, ndtri, stdtr

from analyzer.stats.estimate import Estimate, student

POWER = 0.8
LEAST_P = 1e-6  # that an interval is asked for
K = TypeVar("K", bound=Hashable)


def mcnemar(to_wrong: int, to_right: int) -> float:
    """Return the exact two-sided p-value that both kinds of flip are equally likely. Source: McNemar 1947, binomial form."""
    n_flips = to_wrong + to_right
    return min(1.0, 2 * float(bdtr(min(to_wrong, to_right), n_flips, 0.5))) if n_flips else 1.0


def paired_p(change: Estimate) -> float:
    """Return the two-sided p-value of no change by Student's t; NaN where there is nothing to test."""
    if not change.error > 0:
        return math.nan
    return 2 * float(stdtr(change.freedom, -abs(change.value) / change.error))


def interval_p(change: Estimate) -> float:
    """Return 1 minus the level at which the interval begins to hold 0; NaN without an interval."""
    if math.isnan(change.interval().low):
        return math.nan

    def excludes(p: float) -> bool:
        low, high = change.interval(1 - p)
        return low > 0 or high < 0

    least, most = LEAST_P, 1.0
    if excludes(least):
        return least
    while most / least > 1.01:
        middle = math.sqrt(least * most)
        least, most = (least, middle) if excludes(middle) else (middle, most)
    return most


def detectable(change: Estimate) -> float:
    """Return the smallest true change that such a comparison finds at the 5 % level in 80 % of cases."""
    if not change.error > 0:
        return math.nan
    return (student(change.freedom) + float(ndtri(POWER))) * change.error


def holm(p_values: Mapping[K, float]) -> dict[K, float]:
    """Return adjusted p-values by the same keys. Source: Holm 1979."""
    adjusted = {}
    largest = 0.0
    for step, key in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[key]))
        adjusted[key] = largest
    return adjusted
