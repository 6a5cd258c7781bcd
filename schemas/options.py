"""What belongs to an item's own options in an array of (item, option), and how much of the vocabulary's probability they hold.

Items of one set may have different numbers of options; arrays are as wide as the widest, NaN beyond an item's own.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def own_options(n_options: NDArray[np.integer[Any]], width: int) -> NDArray[np.bool_]:
    """Return (item, option) true where an item has that option.

    n_options : (item,) number of options of each item.  width : columns of the array, at least as many.
    """
    return np.asarray(np.arange(width) < n_options[:, None])


def option_mass(
    logits: NDArray[np.floating[Any]], n_options: NDArray[np.integer[Any]], logsumexp: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Return (item,) the probability of all options together in the full vocabulary; NaN where the log-sum-exp was not recorded.

    logits : (item, option) raw, finite on an item's own options.  logsumexp : (item,) over the full vocabulary.
    """
    raw = np.where(own_options(n_options, logits.shape[1]), logits, -np.inf).astype(np.float64)
    return np.asarray(np.exp(raw - logsumexp.astype(np.float64)[:, None]).sum(axis=1))
