"""Bounds on a mean that hold for few items and for rare or skewed values, where Student's t does not.

A normal interval takes the spread from the observed items. If 1 item in 100 has an extreme value, 37 % of samples of 100 have none of
them, and their spread does not show it. The bound used here takes the worst value that an item may have and adds one such item: the upper
bound on the mean is the 1 - tail quantile of the mean of the N values and this one, under uniform Dirichlet weights. For shares it is the
bound of Clopper & Pearson 1934; for many well-behaved values it is Student's.

Source : Gaffke 2005, "Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative variable", Mathematical
Methods of Statistics 14; Learned-Miller & Thomas 2019, arXiv:1905.06208, section 5. Its validity is proved for shares; otherwise it
held in all simulations of both papers. For more than two distinct values, the quantile comes from Lugannani & Rice's saddlepoint formula
(1980).
"""

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaincinv, ndtr

from analyzer.stats.arrays import AnyArray, FloatArray
from analyzer.stats.estimate import Interval

STEPS = 60  # largest number of steps of the search for the saddlepoint; about 8 are needed
CLOSE = 1e-12


def mean_interval(values: AnyArray, least: float, most: float, tail: float) -> Interval:
    """Return an interval that misses the mean with probability at most `tail` on either side.

    values : (item,) in [least, most], the limits for any item, observed or not.
    Raises ValueError for a value outside these limits.
    """
    return Interval(-mean_upper_bound(-np.asarray(values, dtype=np.float64), -least, tail), mean_upper_bound(values, most, tail))


def mean_upper_bound(values: AnyArray, most: float, tail: float) -> float:
    """Return an upper bound that the mean exceeds with probability at most `tail`; `most` if there are no values."""
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
