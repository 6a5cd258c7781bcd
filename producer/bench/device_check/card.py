"""What the device itself can do, with which every other figure is compared: fastest matrix products and copies."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

from producer.bench.device_check.finding import Finding, Measured, Where, attempt
from producer.engine.layer_source import Target, synchronize
from producer.engine.throughput import matrix_peak
from producer.machine.environment import device_name, versions

REPEATS = 5


def card(where: Where) -> Iterator[Finding]:
    """Yield name, driver and libraries; the peak of matrix products; the speed of copies on the device and to it."""
    yield attempt("device", lambda: _named(where.device))
    yield attempt("matrix products", lambda: _peaks(where.device))
    yield attempt("copies", lambda: _copies(where))


def _named(device: str) -> Measured:
    import torch

    figures: dict[str, Any] = {"name": device_name(device), **versions(), "threads": torch.get_num_threads()}
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(device)
        figures |= {"driver": _driver(), "CUDA": torch.version.cuda, "memory GiB": total / 2**30, "free GiB": free / 2**30}
        figures["compute capability"] = ".".join(map(str, torch.cuda.get_device_capability(device)))
    measured = Measured(figures)
    measured.require(torch.get_float32_matmul_precision() == "highest", "float32 products are rounded to fewer bits (TF32)")
    return measured


def _peaks(device: str) -> Measured:
    import torch

    measured = Measured()
    for dtype in (torch.bfloat16, torch.float32):
        measured.figures[f"{str(dtype).removeprefix('torch.')} TFLOP/s"] = matrix_peak(Target(device, dtype)) / 1e12
    return measured


def _copies(where: Where) -> Measured:
    """Return GB/s: on the device counting bytes read and written, from the host counting bytes copied."""
    import torch

    size = 2**24 if where.small else 2**32
    source = torch.ones(size, dtype=torch.uint8, device=where.device)
    target = torch.empty_like(source)
    figures = {"on the device GB/s": 2 * size / _seconds(lambda: target.copy_(source), where.device) / 1e9}
    if where.device.startswith("cuda"):
        host = torch.ones(size, dtype=torch.uint8)
        figures["from ordinary host memory GB/s"] = size / _seconds(lambda: target.copy_(host), where.device) / 1e9
        pinned = host.pin_memory()
        figures["from pinned host memory GB/s"] = size / _seconds(lambda: target.copy_(pinned, non_blocking=True), where.device) / 1e9
    return Measured(dict(figures))


def _seconds(work: Callable[[], Any], device: str) -> float:
    """Return the seconds of the fastest of several repeats."""
    best = float("inf")
    for _ in range(REPEATS):
        synchronize(device)
        clock = time.perf_counter()
        work()
        synchronize(device)
        best = min(best, time.perf_counter() - clock)
    return best


def _driver() -> str:
    """Return the version of the GPU's driver, "unknown" where the driver's own command is absent."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return "unknown"
    done = subprocess.run([command, "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True, check=False)
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else "unknown"
