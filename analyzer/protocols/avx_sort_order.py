"""The order in which the published benchmark's script sorts tied options.

Its script sorts with np.argsort, whose order of ties is not defined: on processors with AVX2 or AVX-512, six float32 values go through
the sorting network written out here, which leaves tied options in neither rising nor falling index order. Of the 324 published-logit rows,
79 need exactly this order. Checked against np.argsort over all 4,683 weak orders of six values (see the tests).
"""

import numpy as np
from numpy.typing import NDArray

from analyzer.stats.arrays import AnyArray
from schemas.errors import UsageError

LANES = 8
# Bitonic sort of eight lanes: every pair is swapped where the first lane holds the larger value, and left alone on a tie.
NETWORK = (
    ((0, 1), (2, 3), (4, 5), (6, 7)),
    ((0, 3), (1, 2), (4, 7), (5, 6)),
    ((0, 1), (2, 3), (4, 5), (6, 7)),
    ((0, 7), (1, 6), (2, 5), (3, 4)),
    ((0, 2), (1, 3), (4, 6), (5, 7)),
    ((0, 1), (2, 3), (4, 5), (6, 7)),
)


def network_argsort(values: AnyArray) -> NDArray[np.int64]:
    """Return (item, position) the options by rising value, with ties in the order that the network leaves.

    values : (item, option) finite. Raises UsageError for more than 8 options, which need another network.
    """
    n_items, n_options = values.shape
    if n_options > LANES:
        raise UsageError(f"protocol ye2024 is defined for up to {LANES} options; these items have {n_options}")
    keys = np.full((LANES, n_items), np.inf, dtype=values.dtype)
    keys[:n_options] = values.T
    order = np.repeat(np.arange(LANES)[:, None], n_items, axis=1)
    for stage in NETWORK:
        for low, high in stage:
            swap = keys[low] > keys[high]
            for lanes in (keys, order):
                lanes[low], lanes[high] = np.where(swap, lanes[high], lanes[low]), np.where(swap, lanes[low], lanes[high])
    return order[:n_options].T
