"""The least of many noisy shares is low by chance: what is known of each, corrected for having been picked.

Of 57 groups of 35 items that are all covered in 90 % of cases, the least covered one shows 77 % on average. The law from which the groups'
true shares come is estimated from all groups together, whatever its form, and each group's share is then its mean given what the group
shows. Healthy groups are drawn to the others; a group that stands apart keeps what it shows. Such means need no correction for a choice
among them.

Source : Kiefer & Wolfowitz 1956, Annals of Mathematical Statistics 27, for the law; Efron 2011, JASA 106, for the choice.
"""

import numpy as np
from scipy.special import xlog1py, xlogy

from analyzer.stats.arrays import FloatArray

GRID = np.linspace(0.0025, 0.9975, 200)  # of true shares
STEPS = 100  # more fit the law to noise: with 500 the least of 57 healthy groups falls from 0.886 to 0.876


def shrunken_shares(shares: FloatArray, items: FloatArray) -> FloatArray:
    """Return (group,) the mean of each group's true share given all groups.

    shares : (group,) as seen, in [0, 1].  items : (group,) how many independent items each rests on, above 0.
    """
    log = xlogy((shares * items)[:, None], GRID) + xlog1py(((1 - shares) * items)[:, None], -GRID)
    likelihood = np.exp(log - log.max(axis=1, keepdims=True))
    law = np.full(GRID.size, 1 / GRID.size)
    for _ in range(STEPS):
        posterior = likelihood * law
        posterior /= posterior.sum(axis=1, keepdims=True)
        law = posterior.mean(axis=0)
    return np.asarray(posterior @ GRID)
