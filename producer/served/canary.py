"""Canaries: fixed prompts that show whether the same model still answers, since nobody can verify the weights behind an address.

In: a form of question, prompts.  Out: log-probabilities (canary x option), and a ServerError when they have moved further than rounding.
They are asked three times at once before a run (which shows how much batching moves them), then during the run and at its end. A change
of the weights that moves them by less than `LEAST` on average is not seen.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from producer.served.client import ServerError

TEXTS = (
    "Which of these is a planet?\nA. granite\nB. Mars\nC. a violin\nD. Tuesday\nAnswer:",
    "What is 7 times 8?\nA. 54\nB. 63\nC. 48\nD. 56\nAnswer:",
    "The opposite of early is\nA. late\nB. tall\nC. quiet\nD. green\nAnswer:",
)
LETTERS = 4
REPEATS = 3
LEAST, TIMES = 0.05, 4  # the mean change that is always taken for rounding, and how often the spread at the start

Table = NDArray[np.float64]


def allowed_change(spread: float) -> float:
    """Return the mean change of log-probability that is taken for rounding, where repeats at one time differ by `spread`."""
    return max(LEAST, TIMES * spread)


class Canaries:
    """The canaries of one server.

    ask : every canary once, at the same time -> (canary, option) log-probabilities.
    """

    def __init__(self, ask: Callable[[int], Sequence[Table]]) -> None:
        self._ask = ask
        first = np.stack(ask(REPEATS))
        self.table: Table = first.mean(axis=0)
        self.spread = float(np.abs(first - self.table).mean(axis=(1, 2)).max())

    @property
    def allowed(self) -> float:
        """Mean absolute change of log-probability that is taken for rounding."""
        return allowed_change(self.spread)

    def check(self, when: str) -> None:
        """Ask again, a second time where the answers moved. Raises ServerError if the same model cannot have given them."""
        for _ in range(2):
            moved = float(np.abs(self._ask(1)[0] - self.table).mean())
            if moved <= self.allowed:
                return
        raise ServerError(
            f"another model answers {when}: the log-probabilities of the canary prompts moved by {moved:.3g} on average, and "
            f"{self.allowed:.3g} can be rounding; nothing of this run is stored"
        )
