"""Stop cleanly on Ctrl-C, SIGTERM or a closed terminal (SIGHUP): finish the current batch and commit the finished runs.

While a model is being loaded or compressed, which can take an hour, no batch is running, so the command stops immediately.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from schemas.errors import HedgemarkError

STOPPED_BY = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))  # Windows has no SIGHUP
STOPPING = b"\nfinishing the current batch; a second signal stops at once, and what is not yet committed is lost\n"


class Interrupted(HedgemarkError):
    """A signal asked the command to stop; the exit code is the one that shells use for that signal, 128 plus its number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number


class Stop:
    """Remembers the first signal, so that work stops at the next `check`; a second signal ends the process immediately."""

    def __init__(self) -> None:
        self.signal_number = 0
        self.raises_immediately = False

    @contextmanager
    def raise_immediately(self) -> Iterator[None]:
        """Raise Interrupted as soon as a signal arrives within this block, or on entry if one already has; for work that writes nothing."""
        self.check()
        self.raises_immediately = True
        try:
            yield
        finally:
            self.raises_immediately = False

    def check(self) -> None:
        """Raise Interrupted if a signal has arrived; called between batches."""
        if self.signal_number:
            name = "Ctrl-C" if self.signal_number == signal.SIGINT else signal.Signals(self.signal_number).name
            raise Interrupted(f"stopped by {name}", self.signal_number)


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Let Ctrl-C, SIGTERM and SIGHUP set `Stop` instead of ending the process; a signal that is ignored (nohup) stays ignored."""
    stop = Stop()
    before = {number: signal.getsignal(number) for number in STOPPED_BY}
    previous = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}

    def remember(number: int, _: FrameType | None) -> None:
        stop.signal_number = number
        if stop.raises_immediately:
            stop.check()
        with suppress(OSError):  # the terminal may be closed
            os.write(2, STOPPING)  # not print: the handler may have interrupted another write to stderr
        for each in previous:
            signal.signal(each, signal.SIG_DFL)  # Python's own handler would raise only after the running batches end

    for number in previous:
        signal.signal(number, remember)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
