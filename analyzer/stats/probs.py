"""Logits to probs over an item's own options, and the order in which ties are broken."""

import numpy as np

from analyzer.stats.arrays import AnyArray, FloatArray, IntArray, over_options
from schemas.options import own_options


def softmax(logits: AnyArray, n_options: IntArray) -> FloatArray:
    """Return (item, option) float64 probs that sum to 1 over an item's own options; NaN beyond them.

    logits : (item, option), finite on every item's own options.
    The sum is taken by rising power, so that the order of an item's options changes no bit of their probs.
    """
    raw, option_mask = _shifted(logits, n_options)
    powers = np.exp(raw)
    return np.where(option_mask, powers / np.sort(powers, axis=1).sum(axis=1, keepdims=True), np.nan)


def log_softmax(logits: AnyArray, n_options: IntArray) -> FloatArray:
    """Return the logarithm of `softmax`, exact where a prob underflows to 0."""
    raw, option_mask = _shifted(logits, n_options)
    return np.where(option_mask, raw - np.log(over_options(np.add, np.exp(raw)))[:, None], np.nan)


def rising_order(values: AnyArray) -> IntArray:
    """Return the order in which (item,) values rise, equal ones by ascending index; no value may be NaN.

    It is `np.argsort(values, kind="stable")`, in less than its time: a sort that is not stable, then one of the indices of equal values.
    """
    order = np.argsort(values)
    rising = values[order]
    first = np.concatenate([[0], (rising[1:] != rising[:-1]).cumsum()]) * values.size  # the same number for equal values, rising
    return np.asarray(np.sort(first + order) - first)


def likely_first(probs: FloatArray) -> IntArray:
    """Return (item, rank) the options by falling prob, the likeliest first; ties by ascending option index, NaN last."""
    return np.argsort(-probs, axis=1, kind="stable")


def top_option(probs: FloatArray) -> IntArray:
    """Return (item,) the most likely option, the first of them where several tie."""
    return np.asarray(np.nanargmax(probs, axis=1))


def _shifted(logits: AnyArray, n_options: IntArray) -> tuple[FloatArray, AnyArray]:
    option_mask = own_options(n_options, logits.shape[1])
    raw = np.where(option_mask, logits, -np.inf).astype(np.float64)
    return raw - over_options(np.maximum, raw)[:, None], option_mask
