"""How a question looks to the model, without its answer: statistics that tell whether live questions look like those that calibrated.

Each is counted in fixed bins. What depends on the threshold, such as the size of the prediction set, is not among them: the threshold was
chosen with the calibration questions and not with the live ones, so the two would differ a little even where nothing has changed.
"""

import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from analyzer.predictor.document import BINS, LOOKS
from analyzer.stats.arrays import AnyArray, FloatArray, IntArray
from analyzer.stats.probs import likely_first

TOP_PROB, ENTROPY, CREDIBLE_SIZE, OPTION_MASS = LOOKS


def looks_of(probs: FloatArray, alpha: Fraction, mass: FloatArray | None) -> Mapping[str, IntArray]:
    """Return (question,) the bin of each statistic by name.

    probs : (question, option).  mass : (question,) probability of all options in the vocabulary; None where it is not known.
    top_prob: the largest prob. entropy: in units of its maximum. credible_size: how many of the likeliest options hold 1 - alpha.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(probs > 0, probs * np.log(probs), 0.0)
    n_options = np.sum(~np.isnan(probs), axis=1)
    held = np.nan_to_num(np.take_along_axis(probs, likely_first(probs), axis=1)).cumsum(axis=1)
    found = {
        TOP_PROB: _bin(np.nanmax(probs, axis=1)),
        ENTROPY: _bin(-terms.sum(axis=1) / np.log(n_options)),
        CREDIBLE_SIZE: np.minimum(np.sum(held < 1 - float(alpha), axis=1) + 1, n_options),
    }
    return found if mass is None or not np.isfinite(mass).all() else found | {OPTION_MASS: _bin(mass)}


def count_looks(looks: Mapping[str, IntArray]) -> dict[str, list[int]]:
    """Return how many questions fell into each bin, by statistic."""
    return {name: np.bincount(bins, minlength=BINS).tolist() for name, bins in looks.items()}


def middle(counts: AnyArray) -> float:
    """Return the mean bin of some counts; NaN without any."""
    return float(counts @ np.arange(len(counts)) / counts.sum()) if counts.sum() else math.nan


def _bin(share: FloatArray) -> IntArray:
    return np.clip(share * BINS, 0, BINS - 1).astype(np.int64)
