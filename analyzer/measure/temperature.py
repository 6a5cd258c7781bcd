"""Probability calibration: one temperature per split, fitted on its calibration items alone."""

import numpy as np

from analyzer.runs.view import RunView
from analyzer.stats.arrays import BoolArray, FloatArray
from analyzer.stats.probs import softmax

COLDEST, HOTTEST, STEPS = 1e-3, 1e3, 60


def tempered_probs(view: RunView, temperature: float) -> FloatArray:
    """Return (item, option) softmax of logits / temperature."""
    return softmax(view.logits.astype(np.float64) / temperature, view.n_options)


def fit_temperature(view: RunView, chosen: BoolArray) -> float:
    """Return the temperature in [0.001, 1000] with the least negative log-likelihood on the chosen items.

    The likelihood is concave in 1 / temperature, so its slope is bisected. Source: Guo et al. 2017, arXiv:1706.04599.
    """
    part = view.keep(chosen)
    own = np.arange(part.logits.shape[1]) < part.n_options[:, None]
    logits = np.where(own, part.logits, 0.0).astype(np.float64)
    of_answer = float(logits[np.arange(part.n_items), part.answer].sum())
    low, high = np.log(1 / HOTTEST), np.log(1 / COLDEST)
    for _ in range(STEPS):
        middle = (low + high) / 2
        expected = float(np.nansum(softmax(part.logits.astype(np.float64) * np.exp(middle), part.n_options) * logits))
        low, high = (middle, high) if of_answer > expected else (low, middle)
    return float(np.exp(-(low + high) / 2))
