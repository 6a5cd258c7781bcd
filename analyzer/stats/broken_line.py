"""Does a sweep bend at one point, or does it grow smoothly? A test of a broken line against smooth curves, valid for five to ten points.

The points of a sweep are estimates with a known covariance (they share items and the dense run), so no residual variance has to be
estimated from a few points. The smooth curves are a rising line plus a power, an exponential or a sigmoid, none of which turns within less
than a tenth of the sweep, because so few points cannot distinguish a sharper turn from a break. How much better a broken line fits than the
best smooth curve has no known distribution; it is compared with simulations under that best curve, drawn with the covariance.
"""

from typing import NamedTuple

import numpy as np

from analyzer.stats.arrays import FloatArray

N_DRAWS, N_INTERVAL_DRAWS = 500, 200
N_PLACES = 81
LEVEL = 0.95
MISFIT = 0.01  # share of the growth by which smooth growth may deviate from these curves
POWERS = np.concatenate([[0.25, 0.5, 0.75], [1.25, 1.5, 1.75], np.arange(2.0, 6.01, 0.5)])
RATES = np.arange(1.0, 8.01, 1.0)  # of exponentials, over the whole sweep
MIDDLES, WIDTHS = np.arange(-0.2, 1.41, 0.1), np.geomspace(0.1, 0.4, 6)  # of sigmoids, in units of the sweep


class BrokenLine(NamedTuple):
    """The best line that becomes steeper once: `break_at` in units of x, and the 95 % interval from `low` to `high`.

    p : probability that a broken line fits that much better than every smooth curve if the best smooth curve is true.
    """

    break_at: float
    low: float
    high: float
    p: float


class _Family(NamedTuple):
    """Curves a + b x + c shape(x) with b, c >= 0, in coordinates with white noise and orthogonal to the constant.

    line : (point,) of length 1.  shapes : (point, shape) each of length 1.  alike : (shape,) scalar products of shapes and line.
    """

    line: FloatArray
    shapes: FloatArray
    alike: FloatArray


def broken_line(x: FloatArray, y: FloatArray, covariance: FloatArray, rng: np.random.Generator) -> BrokenLine:
    """Return the break of a sweep.

    x, y       : (point,) position and value; at least four distinct x.
    covariance : (point, point) of the values, positive definite.
    """
    misfit = (MISFIT * np.ptp(y)) ** 2 * np.eye(x.size)
    whiten = np.linalg.inv(np.linalg.cholesky(covariance + misfit))
    unit = ((x - x.min()) / np.ptp(x))[:, None]
    breaks = np.linspace(0.0, 1.0, N_PLACES + 2)[1:-1]
    smooth = _family(whiten, unit, _smooth_shapes(unit))
    broken = _family(whiten, unit, np.maximum(unit - breaks, 0.0))
    white = _beside_constant(whiten, (whiten @ y)[:, None])[:, 0]
    gains = _gains(broken, white[None])[0]
    better = gains.max() - _gains(smooth, white[None]).max()
    noise = _beside_constant(whiten, rng.standard_normal((x.size, N_DRAWS))).T
    drawn = noise + _fit(smooth, white)
    advantages = _gains(broken, drawn).max(axis=1) - _gains(smooth, drawn).max(axis=1)
    p = (1 + int((advantages >= better).sum())) / (1 + N_DRAWS)
    likely = _likely(broken, white, noise[:N_INTERVAL_DRAWS])
    scaled = x.min() + np.ptp(x) * breaks
    step = (scaled[1] - scaled[0]) / 2
    return BrokenLine(float(scaled[gains.argmax()]), float(scaled[likely].min() - step), float(scaled[likely].max() + step), p)


def _smooth_shapes(unit: FloatArray) -> FloatArray:
    sigmoids = [1 / (1 + np.exp(-(unit - MIDDLES) / width)) for width in WIDTHS]
    return np.hstack([unit**POWERS, np.expm1(unit * RATES), *sigmoids])


def _family(whiten: FloatArray, unit: FloatArray, shapes: FloatArray) -> _Family:
    columns = _beside_constant(whiten, whiten @ np.hstack([unit, shapes]))
    columns /= np.linalg.norm(columns, axis=0)
    return _Family(columns[:, 0], columns[:, 1:], columns[:, 0] @ columns[:, 1:])


def _beside_constant(whiten: FloatArray, columns: FloatArray) -> FloatArray:
    """Return (point, column) the whitened columns without their component along the constant."""
    constant = whiten.sum(axis=1)
    constant = constant / np.linalg.norm(constant)
    return np.asarray(columns - constant[:, None] * (constant @ columns))


def _weights(family: _Family, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (draw, shape) the weights of line and shape in the best fit with neither below 0."""
    of_line, of_shape = (values @ family.line)[:, None], values @ family.shapes
    rest = np.maximum(1 - family.alike**2, 1e-9)
    line, shape = (of_line - family.alike * of_shape) / rest, (of_shape - family.alike * of_line) / rest
    alone_line, alone_shape = np.maximum(of_line, 0.0), np.maximum(of_shape, 0.0)
    both, only_line = (line >= 0) & (shape >= 0), alone_line >= alone_shape
    return np.where(both, line, alone_line * only_line), np.where(both, shape, alone_shape * ~only_line)


def _gains(family: _Family, values: FloatArray) -> FloatArray:
    """Return (draw, shape) how much the best fit with each shape lowers chi-squared."""
    line, shape = _weights(family, values)
    return np.asarray(line * (values @ family.line)[:, None] + shape * (values @ family.shapes))


def _fit(family: _Family, values: FloatArray) -> FloatArray:
    """Return (point,) the best curve of a family."""
    line, shape = (weights[0] for weights in _weights(family, values[None]))
    best = int(_gains(family, values[None])[0].argmax())
    return np.asarray(line[best] * family.line + shape[best] * family.shapes[:, best])


def _likely(broken: _Family, values: FloatArray, noise: FloatArray) -> FloatArray:
    """Return (place,) bool, the 95 % confidence set: places whose likelihood ratio is common in simulations with the break there."""
    gains = _gains(broken, values[None])[0]
    lines, shapes = (weights[0] for weights in _weights(broken, values[None]))
    likely = np.zeros(gains.size, dtype=np.bool_)
    for index in np.flatnonzero(gains >= gains.max() - 12):  # simulated ratios never come near 12
        truth = lines[index] * broken.line + shapes[index] * broken.shapes[:, index]
        drawn = _gains(broken, truth + noise)
        ratio = drawn.max(axis=1) - drawn[:, index]
        likely[index] = gains.max() - gains[index] <= np.quantile(ratio, LEVEL) + 1e-9
    return likely
