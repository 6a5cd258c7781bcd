"""Bets against a claim, question by question: a capital that is 1 on average at any time while the claim holds.

A gambler who starts with 1 and can never owe anything reaches 1 / delta with probability at most delta, however often and whenever somebody
looks (Ville 1939), so the alarm may be read every night. Half of the capital is bet at once. The rest stays in cash, of which a falling
share is put on the table at every step: a change after long quiet is then found with a delay that grows with the logarithm of time alone.

Source : Shafer 2021, "Testing by betting", JRSS A 184.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from analyzer.stats.arrays import BoolArray, FloatArray, IntArray

AT_ONCE = 0.5  # of the capital, bet from the first question on
LATER = 0.2  # over the number of the question: the share of cash that is bet from it on
MOST = 1e9  # a capital is cut here: it has long raised its alarm


class Bets:
    """The capital of several bets, over any leading dimensions (streams of a simulation).

    total   : (...,) cash and all bets, an e-value.  highest : (...,) the largest it has been.
    steps   : questions seen.
    since   : (..., bet) question after which each bet has won most: the likeliest start of a change, were the bet right.
    """

    def __init__(self, n_bets: int, shape: tuple[int, ...] = ()) -> None:
        self.cash = np.ones(shape)
        self.capital, self.won, self.lowest = (np.zeros((*shape, n_bets)) for _ in range(3))
        self.since: IntArray = np.zeros((*shape, n_bets), dtype=np.int64)
        self.highest = np.ones(shape)
        self.steps = 0

    @property
    def total(self) -> FloatArray:
        """The e-value, (...,)."""
        return np.asarray(self.cash + self.capital.sum(axis=-1))

    def step(self, factors: FloatArray) -> BoolArray:
        """Take the next question: each bet's capital is multiplied by its factor, (..., bet), whose mean is 1 or less under the claim.

        Returns (..., bet) where a bet has now lost most, so that what it has seen since counts from here.
        """
        share = LATER / (self.steps + 1) if self.steps else AT_ONCE
        put = share * self.cash
        self.cash = self.cash - put
        self.capital = np.minimum((self.capital + put[..., None] / factors.shape[-1]) * factors, MOST)
        self.won = self.won + np.log(factors)
        self.steps += 1
        lower = np.asarray(self.won < self.lowest)
        self.lowest = np.where(lower, self.won, self.lowest)
        self.since = np.where(lower, self.steps, self.since)
        self.highest = np.maximum(self.highest, self.total)
        return lower

    @property
    def best(self) -> IntArray:
        """Index of the bet that has won most since its lowest point, (...,)."""
        return np.asarray(np.argmax(self.won - self.lowest, axis=-1))

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes, for one stream."""
        arrays = {name: getattr(self, name).tolist() for name in ("cash", "capital", "won", "lowest", "since", "highest")}
        return arrays | {"steps": self.steps}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Bets":
        """Return the bets that were written."""
        bets = cls(len(value["capital"]))
        for name in ("cash", "capital", "won", "lowest", "highest"):
            setattr(bets, name, np.asarray(value[name], dtype=np.float64))
        bets.since, bets.steps = np.asarray(value["since"], dtype=np.int64), int(value["steps"])
        return bets
