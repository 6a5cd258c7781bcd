"""What the numbers of a table are: logits, or probabilities in one of several forms. Softmax over the wrong form raises no error.

In: (item, option) numbers, NaN beyond an item's own options, and their stated kind.  Out: logits.
"""

import logging

import numpy as np
from numpy.typing import NDArray

from schemas.errors import UsageError

log = logging.getLogger(__name__)

LOGITS, LOG_PROBABILITIES, PROBABILITIES = "logits", "log-probabilities", "probabilities"
PERCENTAGES, NEGATIVE = "percentages", "negative-log-probabilities"
KINDS = (LOGITS, LOG_PROBABILITIES, PROBABILITIES, PERCENTAGES, NEGATIVE)
PREFIXES = {"logit_": LOGITS, "logprob_": LOG_PROBABILITIES, "prob_": PROBABILITIES}
Array = NDArray[np.float64]

SMALLEST = float(np.nextafter(0, 1))  # replaces a probability of 0, which has no logarithm; softmax gives 0 back
ROUNDED = 0.005  # rounding error of each number in a file with two decimals, and above that of 16-bit floats (0.004 in bfloat16)


def recognised(values: Array, n_options: NDArray[np.int_]) -> str:
    """Return the kind of numbers without a stated kind: logits, unless every row is a distribution, which logits are not by chance."""
    complete = values[np.isfinite(values).sum(axis=1) == n_options]
    if not len(complete) or np.min(complete[np.isfinite(complete)]) < 0:
        return LOGITS  # log-probabilities too, for they are logits
    for kind, total, probs in ((PROBABILITIES, 1, complete), (PERCENTAGES, 100, complete), (NEGATIVE, 1, np.exp(-complete))):
        room = total * (ROUNDED * np.isfinite(probs).sum(axis=1) + 1e-6)
        if np.all(np.abs(np.nansum(probs, axis=1) - total) <= room):
            return kind
    return LOGITS


def to_logits(values: Array, kind: str, where: str) -> Array:
    """Return (item, option) numbers of a kind as logits, whose softmax gives the intended probabilities.

    Raises UsageError naming the first row that cannot be of this kind.
    """
    if kind == LOGITS:
        return values
    if kind in (LOG_PROBABILITIES, NEGATIVE):
        logits = values if kind == LOG_PROBABILITIES else -values
        with np.errstate(over="ignore"):
            _check(np.exp(logits), where, kind)
        return logits
    probs = values / 100 if kind == PERCENTAGES else values
    _check(probs, where, kind)
    if zeros := int((probs == 0).sum()):
        log.warning("%s: %d %s are 0, which has no logarithm; %g stands for them", where, zeros, kind, SMALLEST)
    return np.log(np.maximum(probs, SMALLEST))


def _check(probs: Array, where: str, kind: str) -> None:
    """Refuse rows that are no probabilities; over the options they sum to 1, over option tokens within a whole vocabulary to less."""
    room = ROUNDED * np.isfinite(probs).sum(axis=1) + 1e-6
    wrong = np.any((probs < 0) | (probs > 1 + ROUNDED), axis=1) | (np.nansum(probs, axis=1) > 1 + room)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UsageError(f"{where}: row {row + 1} cannot be {kind}: as probabilities its numbers sum to {np.nansum(probs[row]):.4g}")
