"""Statistics that need no correct answer, to tell whether live questions resemble the calibration questions.

Each is counted in fixed bins. Statistics that depend on the threshold, such as the size of the prediction set, are left out: the threshold
was computed from the calibration questions and not from the live ones, so the two would differ slightly even if nothing had changed.
"""

from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from analyzer.predictor.document import BINS, COARSE_BINS, LOOKS
from analyzer.stats.arrays import FloatArray, IntArray
from analyzer.stats.probs import likely_first

TOP_PROB, ENTROPY, CREDIBLE_SIZE, OPTION_MASS = LOOKS


def looks_of(probs: FloatArray, alpha: Fraction, mass: FloatArray | None) -> Mapping[str, IntArray]:
    """Return the bin of every question, (question,), by statistic.

    probs : (question, option).  mass : (question,) total probability of the options within the whole vocabulary; None if unknown.
    top_prob: the largest probability. entropy: divided by its maximum. credible_size: how many of the likeliest options are needed for a
    total probability of 1 - alpha. option_mass: `mass`, if it is known for all questions.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(probs > 0, probs * np.log(probs), 0.0)
    n_options = np.sum(~np.isnan(probs), axis=1)
    cumulated = np.nan_to_num(np.take_along_axis(probs, likely_first(probs), axis=1)).cumsum(axis=1)
    bins = {
        TOP_PROB: _bin(np.nanmax(probs, axis=1)),
        ENTROPY: _bin(-terms.sum(axis=1) / np.log(n_options)),
        CREDIBLE_SIZE: np.minimum(np.sum(cumulated < 1 - float(alpha), axis=1) + 1, n_options),
    }
    return bins if mass is None or not np.isfinite(mass).all() else bins | {OPTION_MASS: _bin(mass)}


def count_looks(looks: Mapping[str, IntArray]) -> dict[str, list[int]]:
    """Return the number of questions in each bin, by statistic."""
    return {name: np.bincount(bins, minlength=BINS).tolist() for name, bins in looks.items()}


def coarse(name: str, bins: IntArray) -> IntArray:
    """Return the coarser bins in which the questions of each subject are counted; sizes of sets stay as they are."""
    return bins if name == CREDIBLE_SIZE else bins * COARSE_BINS // BINS


def _bin(share: FloatArray) -> IntArray:
    return np.clip(share * BINS, 0, BINS - 1).astype(np.int64)
