"""Test a claim by betting against it, question by question: while the claim holds, the capital is on average at most 1 at any time.

A gambler who starts with 1 and never goes into debt reaches 1 / delta with probability at most delta, however often and whenever somebody
looks (Ville 1939), so the alarm may be checked every night. Half of the capital is bet from the first question on. The rest stays in cash,
and at every later question a shrinking share of it joins the bets: a change after a long time without one is then found with a delay that
grows only with the logarithm of that time.

Source : Shafer 2021, "Testing by betting", JRSS A 184.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from analyzer.stats.arrays import BoolArray, FloatArray, IntArray

AT_ONCE = 0.5  # share of the capital that is bet from the first question on
LATER = 0.2  # divided by the question's number: the share of the cash that is bet from this question on
MOST = 1e9  # upper limit of a bet's capital; the alarm was raised long before
POINTS = 200  # largest number of points of a trace


class Bets:
    """The capital of several bets. Arrays may have leading dimensions, such as the streams of a simulation.

    total   : (...,) cash plus the capital of all bets, an e-value.  highest : (...,) its largest value so far.
    steps   : number of questions seen.
    since   : (..., bet) number of questions seen when each bet was at its lowest: the likeliest start of a change, if the bet is right.
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
        """Take the next question: multiply each bet's capital by its factor, (..., bet), whose mean is 1 or less under the claim.

        Returns (..., bet) whether a bet is now at its lowest point, so that its gains are counted from here.
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
        """Index of the bet that has gained most since its lowest point, (...,)."""
        return np.asarray(np.argmax(self.won - self.lowest, axis=-1))

    def to_json(self) -> dict[str, Any]:
        """Return the state of a single stream as JSON, which `from_json` reads."""
        arrays = {name: getattr(self, name).tolist() for name in ("cash", "capital", "won", "lowest", "since", "highest")}
        return arrays | {"steps": self.steps}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Bets":
        """Return the bets that `to_json` described."""
        bets = cls(len(value["capital"]))
        for name in ("cash", "capital", "won", "lowest", "highest"):
            setattr(bets, name, np.asarray(value[name], dtype=np.float64))
        bets.since, bets.steps = np.asarray(value["since"], dtype=np.int64), int(value["steps"])
        return bets


class Trace:
    """The largest e-value within each of at most 200 stretches of questions of equal length, so that the watch can be drawn.

    every : length of a stretch in questions; it doubles when there would be too many.  largest : one value per stretch, the last one open.
    """

    def __init__(self) -> None:
        self.every, self.n, self.largest = 1, 0, list[float]()

    def add(self, e_value: float) -> None:
        """Take the e-value after the next question."""
        if self.n % self.every == 0:
            if len(self.largest) == POINTS:
                self.largest = [max(pair) for pair in zip(self.largest[::2], self.largest[1::2], strict=True)]
                self.every *= 2
            self.largest.append(e_value)
        else:
            self.largest[-1] = max(self.largest[-1], e_value)
        self.n += 1

    @property
    def questions(self) -> list[int]:
        """Number of questions seen at the end of each stretch."""
        return [min((i + 1) * self.every, self.n) for i in range(len(self.largest))]

    def to_json(self) -> dict[str, Any]:
        """Return the trace as JSON, which `from_json` reads."""
        return {"every": self.every, "n": self.n, "largest": self.largest}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Trace":
        """Return the trace that `to_json` described."""
        trace = cls()
        trace.every, trace.n, trace.largest = int(value["every"]), int(value["n"]), [float(one) for one in value["largest"]]
        return trace
