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
    return np.where(option_mask, powers / over_options(np.add, np.sort(powers, axis=1))[:, None], np.nan)


def log_softmax(logits: AnyArray, n_options: IntArray) -> FloatArray:
    """Return the logarithm of `softmax`, exact where a prob underflows to 0."""
    raw, option_mask = _shifted(logits, n_options)
    return np.where(option_mask, raw - np.log(over_options(np.add, np.exp(raw)))[:, None], np.nan)


def rising_order(values: FloatArray) -> IntArray:
    """Return the order in which (item,) values rise, equal ones by ascending index, NaN last.

    It is `np.argsort(values, kind="stable")`, in a fifth of its time: whole numbers are sorted that have the leading bits of a value, which
    order as floats do, and its index. Where values differ in the bits that gave way to the index only, all are sorted as floats.
    """
    index = (1 << values.size.bit_length()) - 1
    key = (values + 0.0).view(np.int64)  # 0.0 and -0.0 are equal, so they need equal bits
    if (key < 0).any():
        key ^= (key >> 63) & np.int64(2**63 - 1)
    key &= ~index
    key |= np.arange(values.size)
    key.sort()
    key &= index
    rising = values[key]
    in_order = not (rising[1:] < rising[:-1]).any() and not np.isnan(rising[:1]).any()  # a NaN with a sign is the lowest key
    return key if in_order else np.argsort(values, kind="stable")


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
