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
from scipy.special import betaincinv, ndtr, ndtri

from analyzer.stats.arrays import AnyArray, FloatArray
from analyzer.stats.estimate import Interval

FARTHEST = 60.0  # place of the saddlepoint at which every probability is below 1e-20
LEAST, MOST = 1e-300, 1 - 1e-15  # a probability outside has no finite normal quantile


def mean_interval(values: AnyArray, least: float, most: float, tail: float) -> Interval:
    """Return an interval that misses the mean with probability at most `tail` on either side.

    values : (item,) in [least, most], the limits for any item, observed or not.
    Raises ValueError for a value outside these limits.
    """
    return Interval(-mean_upper_bound(-np.asarray(values, dtype=np.float64), -least, tail), mean_upper_bound(values, most, tail))


def mean_upper_bound(values: AnyArray, most: float, tail: float) -> float:
    """Return an upper bound that the mean exceeds with probability at most `tail`; `most` if there are no values."""
    support, counts = np.unique(np.append(np.asarray(values, dtype=np.float64), most), return_counts=True)
    if support[-1] > most or not np.isfinite(support).all():
        raise ValueError(f"values reach {support[-1]:g}; expected finite ones of at most {most:g}")
    scale = support[-1] - support[0]
    if not scale > 0:
        return float(most)
    if support.size == 2:
        return float(support[0] + scale * betaincinv(counts[1], counts[0], 1 - tail))
    weights = counts.astype(np.float64)
    short = (most - support) / scale  # by how much each value falls short of the largest, in [0, 1]
    return float(most - scale * _tilted(short, weights, _saddlepoint(short, weights, tail))[1])


def _saddlepoint(short: FloatArray, counts: FloatArray, tail: float) -> float:
    """Return the place of the saddlepoint at which the probability of `_tilted` is `tail`.

    The normal quantile of that probability is nearly a straight line in it, so that few steps find where it is that of `tail`.
    """
    sought = float(ndtri(tail))

    def too_likely(x: float) -> float:
        return float(ndtri(min(max(_tilted(short, counts, x)[0], LEAST), MOST))) - sought

    n, mean = float(counts.sum()), float(counts @ short) / float(counts.sum())
    low, high = 0.0, min(-sought / math.sqrt(max(float(counts @ short**2) - n * mean**2, 1e-6)), FARTHEST)  # right for a normal mean
    while high < FARTHEST and too_likely(high) > 0:
        low, high = high, min(2 * high, FARTHEST)
    return float(brentq(too_likely, low, high, xtol=1e-14))


def _tilted(short: FloatArray, counts: FloatArray, x: float) -> tuple[float, float]:
    """Return P(the mean under Dirichlet weights falls short by less than q), and q, for the q whose saddlepoint is at x.

    The mean is above m = 1 - q if a sum of d = q - short times exponential variables is positive. Its saddlepoint t solves sum of
    d / (1 - t d) = 0. With s = t / (1 + t m) this is linear in q, so that q follows from s = 1 - exp(-x) without a search.
    """
    e, s = math.exp(-x), -math.expm1(-x)
    left = e + s * short  # 1 - s * value, without cancellation
    weight = counts / left
    q = float(weight @ short) / float(weight.sum())
    d, left_at_q = q - short, e + s * q
    r = math.sqrt(max(2 * float(counts @ np.log(left / left_at_q)), 0.0))
    if r < 1e-4:  # at the mean itself the formula is 0 / 0; its limit, with the third cumulant
        variance, third = float(counts @ d**2), float(counts @ d**3)
        return float(0.5 + third / (3 * math.sqrt(2 * math.pi) * variance**1.5)), q
    u = s * math.sqrt(float(weight @ (d * d / left)))
    density = math.exp(-r * r / 2) / math.sqrt(2 * math.pi)
    return float(min(max(ndtr(-r) + density * (1 / u - 1 / r), 0.0), 1.0)), q
