"""When a writer commits: 60 s after its last commit, at the end, and on SIGTERM.

One commit per run would make metadata grow as the square of the runs (495 MB for 2,000), since each commit lists them all.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERVAL_S = 60.0
POLL_S = 1.0


class Batch:
    """Runs a writer's steps one at a time and commits between them when it is due.

    land : commits what is pending, given a message, and returns the snapshot id.
    """

    def __init__(self, land: Callable[[str], str], interval_s: float) -> None:
        self._land, self._interval_s = land, interval_s
        self._last = time.monotonic()
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._failure: Exception | None = None
        self._dirty = self._busy = self._terminated = False

    def open(self) -> None:
        """Start the clock, and listen for SIGTERM where this thread may."""
        self._clock = threading.Thread(target=self._tick, name="hedgemark-commit", daemon=True)
        self._clock.start()
        self._previous = None
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._on_sigterm)

    def close(self) -> None:
        """Stop the clock and give SIGTERM back."""
        self._closed.set()
        self._clock.join()
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Within it the session changes, and nothing commits."""
        with self._exclusive():
            yield
            self._dirty = True
        if self._due():
            self.commit("")

    def commit(self, message: str) -> str:
        """Land what is pending and return the snapshot id. Raises what a commit by the clock raised before."""
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
        if self._terminated:
            raise SystemExit(128 + signal.SIGTERM)

    def _due(self) -> bool:
        return time.monotonic() - self._last >= self._interval_s

    def _on_sigterm(self, signum: int, frame: FrameType | None) -> None:
        """Leave through the writer's `with` block, which commits; a step or commit under way is finished first."""
        self._terminated = True
        if not self._busy:
            raise SystemExit(128 + signum)

    def _tick(self) -> None:
        while not self._closed.wait(min(POLL_S, self._interval_s)):
            if self._dirty and self._due():
                self._commit_by_clock()

    def _commit_by_clock(self) -> None:
        """Commit off the main thread; a failure is kept for the next step, which raises it where the caller sees it."""
        with self._lock:
            try:
                self._land("")
                self._dirty = False
            except Exception as error:
                self._failure = error
            self._last = time.monotonic()
