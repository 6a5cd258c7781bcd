"""Say now and then how far a command is, in lines that a terminal and a log file both show.

In: what is done one by one, and who is told.  Out: the same, with a line every few seconds.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from store.shown import counted

T = TypeVar("T")
Tell = Callable[[str], None]

EVERY_S = 5.0


def silent(line: str) -> None:
    """Tell nobody."""


def told(runs: Iterable[T], verb: str, tell: Tell, total: int | None = None) -> Iterator[T]:
    """Yield runs, and tell every few seconds how many are done, such as `read 12 runs`, or `wrote 12 of 54 runs`."""
    last = time.monotonic()
    for number, run in enumerate(runs, start=1):
        yield run
        if (now := time.monotonic()) - last >= EVERY_S:
            done = counted(number, "run") if total is None else f"{number} of {counted(total, 'run')}"
            tell(f"{verb} {done} ...")
            last = now
