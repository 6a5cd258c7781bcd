"""Decide when a writer commits: 60 s after its last commit, at its end, and on SIGTERM or SIGHUP (a closed terminal).

With one commit per run, metadata would grow with the square of the number of runs (495 MB for 2,000), since each commit lists all runs.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERVAL_S = 60.0
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))  # Windows has no SIGHUP
POLL_S = 1.0


class Batch:
    """Runs a writer's steps one at a time and commits between them when a commit is due.

    land : takes a message, commits what is pending, and returns the snapshot id.
    """

    def __init__(self, land: Callable[[str], str], interval_s: float) -> None:
        self._land, self._interval_s = land, interval_s
        self._last = time.monotonic()
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._failure: Exception | None = None
        self._dirty = self._busy = False
        self._ended_by = 0
        self._previous: dict[int, Any] = {}

    def open(self) -> None:
        """Start the clock, and in the main thread handle the signals that would end the process, unless they already have a handler."""
        self._clock = threading.Thread(target=self._tick, name="hedgemark-commit", daemon=True)
        self._clock.start()
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in ENDING if signal.getsignal(number) == signal.SIG_DFL]
            self._previous = {number: signal.signal(number, self._on_signal) for number in heard}

    def close(self) -> None:
        """Stop the clock and restore the signal handlers."""
        self._closed.set()
        self._clock.join()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Let a block of code change the session while no commit can happen; commit afterwards if one is due."""
        with self._exclusive():
            yield
            self._dirty = True
        if self._due():
            self.commit("")

    def commit(self, message: str) -> str:
        """Commit what is pending and return the snapshot id. Raises the error of an earlier commit by the clock, if it failed."""
        with self._exclusive():
            snapshot = self._land(message)
            self._dirty, self._last = False, time.monotonic()
        return snapshot

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._lock:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            self._busy = True
            try:
                yield
            finally:
                self._busy = False
        if self._ended_by:
            raise SystemExit(128 + self._ended_by)

    def _due(self) -> bool:
        return time.monotonic() - self._last >= self._interval_s

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        """Exit through the writer's `with` block, which commits; a running step or commit is finished first."""
        self._ended_by = signum
        if not self._busy:
            raise SystemExit(128 + signum)

    def _tick(self) -> None:
        while not self._closed.wait(min(POLL_S, self._interval_s)):
            if self._dirty and self._due():
                self._commit_by_clock()

    def _commit_by_clock(self) -> None:
        """Commit in the clock's thread; the next step raises an error of this commit, so that the caller learns of it."""
        with self._lock:
            try:
                self._land("")
                self._dirty = False
            except Exception as error:
                self._failure = error
            self._last = time.monotonic()
