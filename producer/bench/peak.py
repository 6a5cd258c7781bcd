"""Measure the peak memory of a piece of code above what was used before it: memory the process holds, or allocated memory only."""

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.005


def anonymous_bytes() -> int:
    """Return the anonymous memory (bytes) of this process. Linux only.

    Pages of memory-mapped weight files are not counted: the kernel frees them when it needs memory.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")))


def in_use() -> int:
    """Return the bytes allocated and not freed, where all threads share one arena (`free_memory.share_malloc_arena`). glibc only."""
    allocated = ctypes.CDLL(None).mallinfo2
    allocated.restype = _Mallinfo
    info = allocated()
    return int(info.uordblks + info.hblkhd)


@contextmanager
def peak_memory(measure: Callable[[], int] = anonymous_bytes) -> Iterator[list[int]]:
    """Yield a list whose single value is, after the `with` block, the peak in bytes above the start."""
    start, peak, finished = measure(), [0], threading.Event()

    def watch() -> None:
        while not finished.wait(POLL_S):
            peak[0] = max(peak[0], measure() - start)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        finished.set()
        thread.join()


class _Mallinfo(ctypes.Structure):
    """Glibc's `struct mallinfo2`: `uordblks` counts bytes in use in the heap, `hblkhd` bytes in separate mappings."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    ]
