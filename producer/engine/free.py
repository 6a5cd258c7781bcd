"""Memory: how much is free, on a device or on the host within its container's limit; that threads share it; what is said when it ran out."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import HedgemarkError

MEMINFO = Path("/proc/meminfo")
CONTAINER = Path("/sys/fs/cgroup")  # what a container sees of its own group
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # glibc's malloc.h


def free_memory(device: str) -> int:
    """Return the bytes free on a device, or available to this process on the host; pages that only cache files count as free."""
    if device.startswith("cuda"):
        import torch

        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    return min(_host(), _container())


def tame_malloc() -> None:
    """Let all threads allocate in one place, and activations again where those of the layer before were. Call it before threads are made.

    With places of their own threads keep more than was ever in use together, and memory given back and taken anew for every product
    costs time. Blocks of 32 MiB and more, which weights may be, still go back at once.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # glibc only
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(M_TRIM_THRESHOLD, 512 * 2**20)


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that an allocation failed, on a device or on the host."""
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


@contextmanager
def memory_for(what: str, device: str) -> Iterator[None]:
    """Within it memory that runs out raises a HedgemarkError that says what for, and what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        advice = "with --device-memory below the size of the weights they stay on the host and go to the device layer by layer"
        raise HedgemarkError(f"the memory of {device} does not hold {what}; {advice}") from error


def _host() -> int:
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text(encoding="ascii").splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError):  # no Linux
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _container() -> int:
    """Return what is left of the container's limit; more than any host has where there is none."""
    try:
        limit, used = ((CONTAINER / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        cached = dict(line.split() for line in (CONTAINER / "memory.stat").read_text(encoding="ascii").splitlines())["inactive_file"]
    except (OSError, KeyError):
        return 2**63
    return 2**63 if limit == "max" else int(limit) - int(used) + int(cached)
