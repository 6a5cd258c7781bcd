"""Which cells of an (item, option) array belong to an item's own options, and the probability of all its options in the vocabulary.

Items of one set may have different numbers of options. Arrays have as many columns as the largest number, with NaN in the unused cells.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)


def own_options(n_options: NDArray[np.integer[Any]], width: int) -> NDArray[np.bool_]:
    """Return (item, option) bool, true if an item has that option.

    n_options : (item,) number of options of each item.  width : number of columns, at least the largest number of options.
    """
    if n_options.size and n_options.min() == width:  # nearly always; to compare all cells takes ten times as long
        return np.ones((n_options.size, width), dtype=np.bool_)
    return np.asarray(np.arange(width) < n_options[:, None])


LARGEST_LOG_PROB = 50.0  # any above 0 is impossible and reported as such; this only keeps the exponential from overflowing


def option_mass(
    logits: NDArray[np.floating[Any]], n_options: NDArray[np.integer[Any]], logsumexp: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Return (item,) the sum of all options' probabilities in the full vocabulary; NaN if the log-sum-exp was not recorded.

    logits : (item, option) raw, finite on an item's own options.  logsumexp : (item,) over the full vocabulary.
    """
    log_probs = logits.astype(np.float64) - logsumexp.astype(np.float64)[:, None]
    has_option = own_options(n_options, logits.shape[1])
    return np.asarray(by_option(np.exp(np.where(has_option, np.minimum(log_probs, LARGEST_LOG_PROB), -np.inf))).sum(axis=0))


def by_option(values: NDArray[Scalar]) -> NDArray[Scalar]:
    """Return (item, option) values as an (option, item) array in memory of its own.

    A reduction over an item's few options is then a few operations on long rows, which takes a third of the time.
    """
    return np.ascontiguousarray(values.T)
