"""Bounds on a mean that hold for few items, rare values and skewed ones, where Student's t does not.

A normal interval reads the spread off the items it has seen. Where 1 item in 100 is ruined, 37 % of samples of 100 hold none of those, and
their spread says nothing about them. The bound used here knows the worst value that an item may have and lets one unseen item have it: an
upper bound on the mean is the 1 - tail quantile of the mean of the N values and that one, under weights from the uniform Dirichlet law.
For shares it is the bound of Clopper & Pearson 1934; for many well-behaved values it is Student's.

Source : Gaffke 2005, "Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative variable", Mathematical
Methods of Statistics 14; Learned-Miller & Thomas 2019, arXiv:1905.06208, section 5. That it holds is proved for shares and seen in all
simulations of either paper for the rest. Beyond two distinct values the quantile comes from Lugannani & Rice's saddlepoint formula (1980).
"""

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaincinv, ndtr

from analyzer.stats.arrays import AnyArray, FloatArray
from analyzer.stats.estimate import Interval

STEPS = 60  # of the search for the saddlepoint; about 8 are needed
CLOSE = 1e-12


def mean_interval(values: AnyArray, least: float, most: float, tail: float) -> Interval:
    """Return an interval of the mean that misses it with probability at most `tail` on either side.

    values : (item,) in [least, most]; least and most are what any item, seen or not, may have.
    Raises ValueError for a value outside.
    """
    return Interval(-mean_upper_bound(-np.asarray(values, dtype=np.float64), -least, tail), mean_upper_bound(values, most, tail))


def mean_upper_bound(values: AnyArray, most: float, tail: float) -> float:
    """Return what the mean exceeds with probability at most `tail`; `most` without any value."""
    seen, counts = np.unique(np.append(np.asarray(values, dtype=np.float64), most), return_counts=True)
    if seen[-1] > most or not np.isfinite(seen).all():
        raise ValueError(f"values reach {seen[-1]:g}; expected finite ones of at most {most:g}")
    scale = seen[-1] - seen[0]
    if not scale > 0:
        return float(most)
    if seen.size == 2:
        return float(seen[0] + scale * betaincinv(counts[1], counts[0], 1 - tail))
    unit = (seen - most) / scale + 1  # now in [0, 1]
    mean = float(unit @ counts) / counts.sum()
    bound = brentq(lambda m: _chance_above(unit, counts, m) - tail, mean, 1 - CLOSE, xtol=1e-10) if mean < 1 - CLOSE else 1.0
    return float(most + (bound - 1) * scale)


def _chance_above(values: FloatArray, counts: AnyArray, m: float) -> float:
    """P(the mean under Dirichlet weights exceeds m): a sum of (value - m) times exponential variables is positive."""
    d = values - m
    t = _saddlepoint(d, counts)
    logs = np.log1p(-t * d)
    r = math.copysign(math.sqrt(max(2 * float(counts @ logs), 0.0)), t)
    u = t * math.sqrt(float(counts @ (d / (1 - t * d)) ** 2))
    if abs(r) < 1e-4:  # at the mean itself the formula is 0 / 0; its limit, with the third cumulant
        variance, third = float(counts @ d**2), float(counts @ d**3)
        return float(0.5 + third / (3 * math.sqrt(2 * math.pi) * variance**1.5))
    density = math.exp(-r * r / 2) / math.sqrt(2 * math.pi)
    return float(min(max(ndtr(-r) + density * (1 / u - 1 / r), 0.0), 1.0))


def _saddlepoint(d: FloatArray, counts: AnyArray) -> float:
    """Return t with sum of d / (1 - t d) = 0: the sum rises from -inf to +inf between the reciprocals of the least and the largest d."""
    low, high = 1 / d[0], 1 / d[-1]
    t = 0.0
    for _ in range(STEPS):
        part = d / (1 - t * d)
        slope = float(counts @ part)
        if slope > 0:
            high = t
        else:
            low = t
        step = t - slope / float(counts @ part**2)
        new = step if low < step < high else (low + high) / 2
        if abs(new - t) <= CLOSE * max(abs(t), 1.0):
            return new
        t = new
    return t
