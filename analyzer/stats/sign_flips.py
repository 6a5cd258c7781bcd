"""The sign-flip test of a paired change, for few or skewed items: exact where there are few, drawn where there are many."""

import numpy as np

from analyzer.stats.arrays import FloatArray

MOST_EXACT = 14  # items that changed at all; 2 ** 14 sign patterns are all looked at
N_DRAWS, ENOUGH, BATCH = 19_999, 50, 1_000
ROUNDING = 1e-9


def sign_flip_p(changes: FloatArray, rng: np.random.Generator) -> float:
    """Return the two-sided p-value that each item's change is as likely of the other sign: how often random signs sum as far from 0.

    changes : (item,) not centred; items without a change do not count.
    Draws end once 50 sums are as far, since p is then known well enough (Besag & Clifford 1991, Biometrika 78).
    """
    moved = changes[changes != 0]
    if not moved.size:
        return 1.0
    reach = abs(float(moved.sum())) * (1 - ROUNDING)
    if moved.size <= MOST_EXACT:
        signs = 1.0 - 2.0 * (np.arange(2**moved.size)[:, None] >> np.arange(moved.size) & 1)
        return float(np.mean(np.abs(signs @ moved) >= reach))
    far = drawn = 0
    while drawn < N_DRAWS:
        signs = 1.0 - 2.0 * rng.integers(0, 2, (min(BATCH, N_DRAWS - drawn), moved.size))
        as_far = (np.abs(signs @ moved) >= reach).cumsum()
        if far + int(as_far[-1]) >= ENOUGH:
            return ENOUGH / (drawn + 1 + int(np.searchsorted(as_far, ENOUGH - far)))
        far, drawn = far + int(as_far[-1]), drawn + as_far.size
    return (far + 1) / (N_DRAWS + 1)
