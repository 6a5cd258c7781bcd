"""Broken line against straight line, honest on five to ten points.

The points of a sweep are estimates with a known covariance (they share items and the dense run), so no residual variance has to be
estimated from a handful of points. The likelihood ratio of a line that steepens at an unknown place against a straight line has no
tabled law; it is compared with its own distribution under the fitted straight line, drawn from that covariance.
"""

from typing import NamedTuple

import numpy as np

from analyzer.stats.arrays import FloatArray

N_DRAWS = 1_000
N_PLACES = 61
WITHIN_95 = 3.8415  # 0.95 quantile of chi-squared with one degree of freedom
PENALTY = 2.0  # Akaike's, for the one parameter that a break has more than a parabola


class BrokenLine(NamedTuple):
    """The best line that steepens once: where, in units of x, with the places that the data do not exclude (95 %), and how surely.

    p       : probability of so large an improvement over a straight line, were the straight line true.
    sharper : whether it describes the points better than a smooth bend does (a parabola, by Akaike's criterion).
    """

    place: float
    low: float
    high: float
    p: float
    sharper: bool


class _Fits(NamedTuple):
    """In coordinates in which the noise is white: the straight line's basis, and the unit vectors that a bend or a break adds to it."""

    whiten: FloatArray
    basis: FloatArray
    places: FloatArray
    breaks: FloatArray
    bend: FloatArray


def broken_line(x: FloatArray, y: FloatArray, covariance: FloatArray, rng: np.random.Generator) -> BrokenLine:
    """Return the break of a sweep.

    x, y       : (point,) position and value; at least four distinct x.
    covariance : (point, point) of the values, positive definite.
    """
    fits = _prepare(x, covariance)
    white = (fits.whiten @ y)[None]
    gains = _gains(fits.basis, fits.breaks, white)[0]
    best = gains.max()
    likely = fits.places[gains >= best - WITHIN_95]
    drawn = _gains(fits.basis, fits.breaks, rng.standard_normal((N_DRAWS, x.size))).max(axis=1)
    p = (1 + int((drawn >= best).sum())) / (1 + N_DRAWS)
    sharper = bool(best > _gains(fits.basis, fits.bend, white).item() + PENALTY)
    return BrokenLine(float(fits.places[gains.argmax()]), float(likely.min()), float(likely.max()), p, sharper)


def _prepare(x: FloatArray, covariance: FloatArray) -> _Fits:
    """The straight line is y = a + b x, a bend adds c x**2, a break at t adds c * max(x - t, 0)."""
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))
    basis, _ = np.linalg.qr(whiten @ np.stack([np.ones_like(x), x], axis=1))
    distinct = np.unique(x)
    places = np.linspace(distinct[1], distinct[-2], N_PLACES)
    breaks = _beside(basis, whiten @ np.maximum(x[:, None] - places, 0.0))
    return _Fits(whiten, basis, places, breaks, _beside(basis, whiten @ (x[:, None] / x.max()) ** 2))


def _beside(basis: FloatArray, vectors: FloatArray) -> FloatArray:
    """Return (point, vector) what is left of vectors beside a basis, each of length 1."""
    rest = vectors - basis @ (basis.T @ vectors)
    return np.asarray(rest / np.linalg.norm(rest, axis=0))


def _gains(basis: FloatArray, directions: FloatArray, values: FloatArray) -> FloatArray:
    """Return (draw, direction) how much each lowers chi-squared; one that would flatten the line is no cliff and gains nothing."""
    rest = values - (values @ basis) @ basis.T
    return np.asarray(np.maximum(rest @ directions, 0.0) ** 2)
