"""Repeated looks at a growing sample (group-sequential tests): the error probability that each look may use.

A gate that says "undecided, use more items" and is run again every night has twenty chances to pass a model that is at its limit: 12.6 %
instead of 2.5 %. A spending function defines beforehand how much of the error probability may be used when a share of the items is in. Each
look then has its own, smaller nominal tail, found by integrating over the paths that no earlier look has stopped.

Source : Lan & DeMets 1983, Biometrika 70; the recursion is Armitage, McPherson & Rowe 1969, JRSS A 132.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from analyzer.stats.arrays import FloatArray

Spending = Callable[[float, float], float]

WIDEST = 8.5  # standard deviations; a statistic beyond them has a probability below 1e-16
N_POINTS = 1_201  # points of the integral over the statistic by Simpson's rule; reproduces published boundaries to the third decimal


def obrien_fleming(share: float, tail: float) -> float:
    """Return the error spent by a share of the items, little at first: 2 - 2 Phi(z / sqrt(share)). It keeps nearly all of the power."""
    return 2 * float(ndtr(ndtri(tail / 2) / math.sqrt(share)))


def pocock(share: float, tail: float) -> float:
    """Return the error spent by a share of the items, evenly over the looks: more early decisions, less power at the last."""
    return tail * math.log1p((math.e - 1) * share)


SPENDING: dict[str, Spending] = {"obrien-fleming": obrien_fleming, "pocock": pocock}


def look_tails(items: Sequence[int], tail: float, spending: str = "obrien-fleming") -> FloatArray:
    """Return (look,) the tail probability at which each look tests, so that one side errs at most `tail` over all looks.

    items : number of items at each look, rising; the last is the largest number that will ever be used.
    Looks are correlated like means over a growing sample. Raises ValueError for counts that do not rise from 1.
    """
    if not items or any(b <= a for a, b in zip([0, *items], items, strict=False)):
        raise ValueError(f"looks at {list(items)} items; expected rising counts from 1")
    spent = [0.0, *(SPENDING[spending](count / items[-1], tail) for count in items)]
    grid = np.linspace(-WIDEST, WIDEST, N_POINTS)
    density = np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi)  # of paths not stopped, by the statistic z
    bound, tails = WIDEST, []
    for look, count in enumerate(items):
        if look:
            density = _next_look(grid, density, bound, items[look - 1] / count)
        bound = _bound(grid, density, spent[look + 1] - spent[look])
        tails.append(float(ndtr(-bound)))
    return np.array(tails)


def _next_look(grid: FloatArray, density: FloatArray, bound: float, share: float) -> FloatArray:
    """The statistic's density at the next look, of paths that were not beyond the bound: z' = sqrt(share) z + sqrt(1 - share) noise."""
    before = np.linspace(-WIDEST, bound, N_POINTS)
    weights = _simpson(before) * np.interp(before, grid, density)
    noise = (grid[:, None] - math.sqrt(share) * before) / math.sqrt(1 - share)
    return np.asarray(np.exp(-(noise**2) / 2) @ weights / math.sqrt(2 * math.pi * (1 - share)))


def _bound(grid: FloatArray, density: FloatArray, error: float) -> float:
    """The value of the statistic that is exceeded with this probability."""

    def beyond(bound: float) -> float:
        part = np.linspace(bound, WIDEST, N_POINTS)
        return float(_simpson(part) @ np.interp(part, grid, density)) - error

    return float(brentq(beyond, -WIDEST, WIDEST - 1e-9)) if beyond(WIDEST - 1e-9) < 0 < beyond(-WIDEST) else WIDEST


def _simpson(points: FloatArray) -> FloatArray:
    weights = np.full(points.size, 2.0)
    weights[1::2] = 4.0
    weights[[0, -1]] = 1.0
    return np.asarray(weights * (points[1] - points[0]) / 3)
