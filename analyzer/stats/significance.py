"""Is a change more than noise: McNemar's test, sign flips, the paired t test, Holm's correction, and the smallest detectable change."""

import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np
from scipy.special import bdtr, ndtri, stdtr

from analyzer.stats.arrays import FloatArray
from analyzer.stats.estimate import Estimate, student

POWER = 0.8
LEAST_P = 1e-6  # that an interval is asked for
MOST_EXACT = 14  # changed items up to which the sign-flip test looks at every pattern of signs, here 2 ** 14
N_DRAWS, ENOUGH, BATCH = 19_999, 50, 1_000  # patterns drawn at most, sums as far from 0 that end the drawing, patterns at a time
ROUNDING = 1e-9
K = TypeVar("K", bound=Hashable)


def mcnemar(to_wrong: int, to_right: int) -> float:
    """Return the exact two-sided p-value that both kinds of flip are equally likely. Source: McNemar 1947, binomial form."""
    n_flips = to_wrong + to_right
    return min(1.0, 2 * float(bdtr(min(to_wrong, to_right), n_flips, 0.5))) if n_flips else 1.0


def sign_flip_p(changes: FloatArray, rng: np.random.Generator) -> float:
    """Return the two-sided p-value that each item's change is as likely of the other sign: how often random signs sum as far from 0.

    changes : (item,) not centred; items without a change do not count.
    Draws end once 50 sums are as far, since p is then known well enough (Besag & Clifford 1991, Biometrika 78).
    """
    moved = changes[changes != 0]
    if not moved.size:
        return 1.0
    reach = abs(float(moved.sum())) * (1 - ROUNDING)
    if moved.size <= MOST_EXACT:
        signs = 1.0 - 2.0 * (np.arange(2**moved.size)[:, None] >> np.arange(moved.size) & 1)
        return float(np.mean(np.abs(signs @ moved) >= reach))
    far = drawn = 0
    while drawn < N_DRAWS:
        signs = 1.0 - 2.0 * rng.integers(0, 2, (min(BATCH, N_DRAWS - drawn), moved.size))
        as_far = (np.abs(signs @ moved) >= reach).cumsum()
        if far + int(as_far[-1]) >= ENOUGH:
            return ENOUGH / (drawn + 1 + int(np.searchsorted(as_far, ENOUGH - far)))
        far, drawn = far + int(as_far[-1]), drawn + as_far.size
    return (far + 1) / (N_DRAWS + 1)


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
