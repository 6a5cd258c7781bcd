"""Do sets still contain the answers? Bets against the exact law of misses under one threshold, and a confidence sequence of their share.

A method that covers 90 % on average over calibration sets may give a threshold that covers less: the coverage of a given threshold is
Beta(k, n + 1 - k), and a test of "at most 10 % are missed" would eventually raise an alarm for half of all sound predictors. While live
questions are exchangeable with the calibration questions, the probability of a miss given the past is exactly
(n + 1 - k + misses) / (n + 1 + questions); the bets are against this probability (Polya's urn; Vovk 2012, arXiv:1209.2673). Scores equal
to the threshold are placed above or below it at random, as if every score had a random tag that breaks ties: the threshold's own tag is
drawn once, a live score's tag when it comes.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaincinv, betaln

from analyzer.predictor.document import Threshold
from analyzer.stats.arrays import AnyArray, FloatArray
from analyzer.stats.random_words import item_uniform
from analyzer.watch.betting import Bets, Trace

ODDS = np.array([1.2, 1.5, 2.0, 3.0, 6.0])  # each bet assumes that the odds of a miss are this many times those of the claim
PRIOR = 0.5  # both parameters of the confidence sequence's mixture, Jeffreys' Beta(1/2, 1/2)


class Range(NamedTuple):
    """The interval of a confidence sequence after the questions so far."""

    low: float
    high: float


def odds_factors(miss: AnyArray | bool, chance: AnyArray | float) -> FloatArray:
    """Return (..., bet) the bets' factors after a miss or a hit; their mean is 1 if a miss has probability `chance`."""
    claim = np.asarray(chance, dtype=np.float64)[..., None]
    bet = ODDS * claim / (1 - claim + ODDS * claim)
    return np.where(np.asarray(miss)[..., None], bet / claim, (1 - bet) / (1 - claim))


def miss_share_range(misses: int, n: int, delta: float) -> Range:
    """Return an interval that contains a constant share of misses at all times together with probability 1 - delta.

    The likelihood ratio of a Beta mixture against a share is an e-value for that share; the interval holds all shares whose e-value is
    below 1 / delta.
    Source : Robbins 1970; Howard, Ramdas, McAuliffe & Sekhon 2021, arXiv:1810.08240, section 3.
    """
    if not n:
        return Range(0.0, 1.0)
    log_mixture = float(betaln(misses + PRIOR, n - misses + PRIOR) - betaln(PRIOR, PRIOR))

    def excess(share: float) -> float:
        log_likelihood = (misses * math.log(share) if misses else 0.0) + ((n - misses) * math.log1p(-share) if n > misses else 0.0)
        return log_mixture - log_likelihood + math.log(delta)

    observed, tiny = misses / n, 1e-15
    inside = min(max(observed, tiny), 1 - 1e-15)
    low = 0.0 if misses == 0 else (brentq(excess, tiny, inside) if excess(tiny) > 0 else 0.0)
    high = 1.0 if misses == n else (brentq(excess, inside, 1 - 1e-15) if excess(1 - 1e-15) > 0 else 1.0)
    return Range(float(low), float(high))


class MissWatch:
    """The test of misses under one threshold. `n` and `misses` count what was seen; `placed` counts misses with ties broken at random."""

    def __init__(self, threshold: Threshold, seed: int) -> None:
        self.threshold, self.seed = threshold, seed
        self.n = self.misses = self.placed = 0
        self.bets, self.trace = Bets(ODDS.size), Trace()
        self.since_label = [""] * ODDS.size
        draw = float(item_uniform(np.array([seed], dtype=np.uint64))[0])
        rank = threshold.k - threshold.below  # rank of the threshold among the scores equal to it
        self.tag = float(betaincinv(rank, threshold.tied - rank + 1, draw)) if threshold.tied else 0.0

    @property
    def watched(self) -> bool:
        """Whether a miss is possible at all: an infinite threshold gives full sets, which miss nothing."""
        return math.isfinite(self.threshold.value)

    def see(self, score: float, missed: bool, label: str) -> None:
        """Take the next question whose answer is known: the score of the answer, and whether the set lacks it."""
        self.n, self.misses = self.n + 1, self.misses + missed
        if not self.watched:
            return
        above = score > self.threshold.value
        if score == self.threshold.value:
            above = self._draw() > self.tag
        one = self.threshold
        chance = (one.n + 1 - one.k + self.placed) / (one.n + 1 + self.bets.steps)
        self.placed += above
        self.bets.step(odds_factors(above, chance))
        self.trace.add(float(self.bets.total))
        for bet in np.flatnonzero(self.bets.since == self.bets.steps - 1):
            self.since_label[bet] = label

    def _draw(self) -> float:
        return float(item_uniform(np.array([self.seed + 1 + self.bets.steps], dtype=np.uint64))[0])

    @property
    def began(self) -> str:
        """The label of the first question after the likeliest change."""
        return self.since_label[int(self.bets.best)]

    def to_json(self) -> dict[str, Any]:
        """Return the watch as JSON, which `from_json` reads."""
        counts = {"n": self.n, "misses": self.misses, "placed": self.placed}
        return counts | {"bets": self.bets.to_json(), "trace": self.trace.to_json(), "since_label": self.since_label}

    @classmethod
    def from_json(cls, threshold: Threshold, seed: int, value: Mapping[str, Any]) -> "MissWatch":
        """Return the watch that `to_json` described."""
        watch = cls(threshold, seed)
        watch.n, watch.misses, watch.placed = (int(value[name]) for name in ("n", "misses", "placed"))
        watch.bets, watch.since_label = Bets.from_json(value["bets"]), list(value["since_label"])
        watch.trace = Trace.from_json(value["trace"])
        return watch
