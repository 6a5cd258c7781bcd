"""The most memory taken while something ran, above what was taken before it: held by the process, or in use of what it holds."""

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.005


def held() -> int:
    """Return the anonymous memory (bytes) of this process. Linux only.

    Pages of mapped weight files are not in it; the kernel takes those back when it needs them.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")))


def in_use() -> int:
    """Return the bytes allocated and not freed, where all threads allocate in one place (`producer.machine.free_memory`). glibc only."""
    allocated = ctypes.CDLL(None).mallinfo2
    allocated.restype = _Mallinfo
    found = allocated()
    return int(found.uordblks + found.hblkhd)


@contextmanager
def peak_memory(measure: Callable[[], int] = held) -> Iterator[list[int]]:
    """Yield a list whose only value ends as the most bytes that were taken above those at the start."""
    start, peak, over = measure(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(POLL_S):
            peak[0] = max(peak[0], measure() - start)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


class _Mallinfo(ctypes.Structure):
    """Glibc's `struct mallinfo2`; `uordblks` are bytes in use in the heap, `hblkhd` those in mappings of their own."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    ]
