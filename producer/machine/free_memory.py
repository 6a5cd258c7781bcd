"""Memory: how much is free, on a device or on the host within its groups' limits; that threads share it; what is said when it ran out."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from schemas.errors import HedgemarkError

MEMINFO = Path("/proc/meminfo")
GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
UNLIMITED = 2**63
NO_MEMORY = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")  # in RuntimeErrors of torch's CPU allocator, and of cuBLAS
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # glibc's malloc.h


class _Names(NamedTuple):
    """Files with a group's limit and use, and the name of what only caches files in its `memory.stat`, groups below included."""

    limit: str
    used: str
    cached: str


VERSION_1 = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = _Names("memory.max", "memory.current", "inactive_file")


def free_memory(device: str) -> int:
    """Return the bytes free on a device, or available to this process on the host; pages that only cache files count as free."""
    if device.startswith("cuda"):
        import torch

        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    return min(_host(), *map(_left, _groups()))


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

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in NO_MEMORY)


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


def _groups() -> Iterator[Path]:
    """Yield the folders whose limits bind this process: its group's and those of all groups above it, as far as they are seen from here.

    The limit of a Slurm or systemd job stands somewhere on the way down; in a container the topmost folder often is its own group.
    """
    yield from (GROUPS, GROUPS / "memory")
    for line in OWN_GROUPS.read_text(encoding="utf-8").splitlines() if OWN_GROUPS.exists() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            folder = GROUPS / "memory" if controllers else GROUPS
            for part in Path(path).parts[1:]:
                folder /= part
                yield folder


def _left(folder: Path) -> int:
    """Return what is left of a group's limit; more than any host has where there is none."""
    names = VERSION_1 if (folder / VERSION_1.limit).exists() else VERSION_2
    try:
        limit, used = ((folder / name).read_text(encoding="ascii").strip() for name in (names.limit, names.used))
        cached = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())[names.cached]
    except (OSError, KeyError):
        return UNLIMITED
    return UNLIMITED if limit == "max" else int(limit) - int(used) + int(cached)
