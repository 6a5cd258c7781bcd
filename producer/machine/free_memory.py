"""Find how much memory is free on a device or on the host (within its cgroups' limits), set up malloc, and explain out-of-memory errors."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from schemas.errors import HedgemarkError

MEMINFO = Path("/proc/meminfo")
GROUPS, PROCESS_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
UNLIMITED = 2**63
NO_MEMORY = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")  # texts in the RuntimeErrors of torch's CPU allocator and of cuBLAS
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # glibc's malloc.h


class _Names(NamedTuple):
    """Names of the files with a cgroup's limit and usage, and the key of its file cache (subgroups included) in `memory.stat`."""

    limit: str
    used: str
    cached: str


VERSION_1 = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = _Names("memory.max", "memory.current", "inactive_file")


def free_memory(device: str) -> int:
    """Return the free bytes of a device, or those that this process can still allocate on the host; file caches count as free."""
    if device.startswith("cuda"):
        import torch

        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    return min(_host(), *map(_left, _groups()))


def share_malloc_arena() -> None:
    """Make all threads share one malloc arena that reuses the memory of freed activations. Call it before any thread is started.

    With one arena per thread, each thread keeps its own freed memory, which adds up to more than was ever in use at one time; and
    returning memory to the system after every matrix product is slow. Blocks of 32 MiB and more, such as weights, are still returned
    at once.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # glibc only
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(M_TRIM_THRESHOLD, 512 * 2**20)


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that an allocation failed, on a device or on the host."""
    torch = sys.modules.get("torch")  # if it is not loaded, the error is none of its own
    kinds = (MemoryError, torch.OutOfMemoryError) if torch else (MemoryError,)
    return isinstance(error, kinds) or any(text in str(error) for text in NO_MEMORY)


@contextmanager
def memory_for(what: str, device: str) -> Iterator[None]:
    """Turn an out-of-memory error in this block into a HedgemarkError that says what the memory was for and what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        advice = "set --device-memory below the size of the weights to keep them on the host and copy them to the device layer by layer"
        raise HedgemarkError(f"the memory of {device} does not hold {what}; {advice}") from error


def _host() -> int:
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text(encoding="ascii").splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError):  # not Linux
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _groups() -> Iterator[Path]:
    """Yield the folders of all cgroups that may limit this process: its own group and every group above it that is visible here.

    A Slurm or systemd job may set its limit on any of these levels; in a container the topmost folder is often the container's own group.
    """
    yield from (GROUPS, GROUPS / "memory")
    for line in PROCESS_GROUPS.read_text(encoding="utf-8").splitlines() if PROCESS_GROUPS.exists() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            folder = GROUPS / "memory" if controllers else GROUPS
            for part in Path(path).parts[1:]:
                folder /= part
                yield folder


def _left(folder: Path) -> int:
    """Return the bytes left below a cgroup's limit; `UNLIMITED`, more than any host has, if it has no limit."""
    names = VERSION_1 if (folder / VERSION_1.limit).exists() else VERSION_2
    try:
        limit, used = ((folder / name).read_text(encoding="ascii").strip() for name in (names.limit, names.used))
        cached = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())[names.cached]
    except (OSError, KeyError):
        return UNLIMITED
    return UNLIMITED if limit == "max" else int(limit) - int(used) + int(cached)
