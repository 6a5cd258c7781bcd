"""Ctrl-C, SIGTERM and a closed terminal (SIGHUP): the batch at hand is finished, finished runs are committed, and the user is told more.

While a model is loaded or compressed, which can take an hour, there is nothing to finish: the command stops there and then.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from schemas.errors import HedgemarkError

STOPPED_BY = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))  # Windows has no SIGHUP
STOPPING = b"\nfinishing the batch at hand; a second signal stops at once and loses what is not committed\n"


class Interrupted(HedgemarkError):
    """A signal asked to stop; the exit code is the shell's for that signal."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number


class Stop:
    """Remembers the first signal; a second one gets through and ends the process at once."""

    def __init__(self) -> None:
        self.signal_number = 0
        self.nothing_to_finish = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within it, where nothing is written, a signal raises Interrupted where it comes, and one that came before does on entry."""
        self.check()
        self.nothing_to_finish = True
        try:
            yield
        finally:
            self.nothing_to_finish = False

    def check(self) -> None:
        """Raise Interrupted where a signal came; called between batches."""
        if self.signal_number:
            raise Interrupted(f"stopped by {signal.Signals(self.signal_number).name}", self.signal_number)


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Within it Ctrl-C, SIGTERM and SIGHUP set `Stop` instead of ending the process; one that is ignored, as by nohup, stays so."""
    stop = Stop()
    before = {number: signal.getsignal(number) for number in STOPPED_BY}
    previous = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}

    def remember(number: int, _: FrameType | None) -> None:
        stop.signal_number = number
        if stop.nothing_to_finish:
            stop.check()
        with suppress(OSError):  # a terminal that was closed takes no more words
            os.write(2, STOPPING)  # a handler may interrupt any other writing to stderr
        for each in previous:
            signal.signal(each, signal.SIG_DFL)  # not Python's handler, whose exception waits for the batches under way

    for number in previous:
        signal.signal(number, remember)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
