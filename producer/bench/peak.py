"""The most memory held while something ran, above what was held before it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.002


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Yield a list whose only value ends as the most anonymous memory (bytes) this process held above what it held at the start.

    Pages of mapped weight files are not in it; the kernel takes those back when it needs them. Linux only.
    """
    start, peak, over = _anonymous(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(POLL_S):
            peak[0] = max(peak[0], _anonymous() - start)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def _anonymous() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")))
