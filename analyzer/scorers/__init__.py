"""Scorers: `scorer(probs, u=None) -> scores`, both (item, option); larger is stranger.

probs : float64, sum to 1 over an item's own options, NaN beyond them; scores are NaN there too.
u     : (item,) uniform draws in [0, 1), used by the randomised scorers only.
A scorer scores all options; which of them is the answer is picked by index in `analyzer.ranks`, in one place.
"""

from collections.abc import Iterable
from typing import Protocol

from analyzer.arrays import FloatArray
from analyzer.scorers.aps import aps
from analyzer.scorers.aps_rand import aps_rand
from analyzer.scorers.lac import lac
from schemas.errors import UsageError


class Scorer(Protocol):
    """A nonconformity score of every option."""

    def __call__(self, probs: FloatArray, u: FloatArray | None = None) -> FloatArray:
        """Return (item, option) scores."""


SCORERS: dict[str, Scorer] = {
    "lac": lac,
    "aps": aps,
    "aps-rand": aps_rand,
}


def check_scorers(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names in order, each once. Raises UsageError that lists the known ones."""
    wanted = tuple(dict.fromkeys(names))
    for name in wanted:
        if name not in SCORERS:
            raise UsageError(f"unknown scorer {name!r}; known: {', '.join(SCORERS)}")
    return wanted
