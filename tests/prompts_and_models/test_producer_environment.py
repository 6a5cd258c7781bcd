"""Where a run was made: the memory that it took itself, and the process's only under a name that says so."""

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from producer.machine import environment as environment_module
from producer.machine.environment import environment, has_8_bit_products, peak_memory, reset_peak

pytestmark = pytest.mark.producer
MIB = 2**20
PROCESS = "process_peak_memory_bytes"


def take(mib: int) -> None:
    """Take some memory and give it back, to the system: what is freed only, malloc may keep."""
    with mmap.mmap(-1, mib * MIB) as memory:
        np.frombuffer(memory, np.uint8)[:] = 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process forget the most memory it had")
def test_a_runs_peak_is_not_that_of_the_run_before() -> None:
    """What was taken and given back before a run begins is no part of its peak; what the run takes itself is."""
    take(200)
    before = peak_memory("cpu")
    assert reset_peak("cpu")
    take(50)
    env = environment("cpu", peak_reset=True)
    assert env.peak_memory_bytes < before - 100 * MIB
    assert PROCESS not in env.throughput
    assert reset_peak("cpu")
    assert peak_memory("cpu") < env.peak_memory_bytes - 25 * MIB


def test_without_a_reset_the_peak_is_the_processs() -> None:
    """It is stored under a name of its own beside the run's rates, and the run's own peak stays unknown."""
    env = environment("cpu", throughput={"items_per_s": 2.0}, tokens=3)
    assert (env.peak_memory_bytes, env.tokens, env.throughput["items_per_s"]) == (0, 3, 2.0)
    assert env.throughput[PROCESS] > 10 * MIB


def test_where_a_reset_is_not_possible_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere than on Linux, and where a sandbox shows no high-water mark, there is only the peak of the whole process."""
    monkeypatch.setattr("producer.machine.environment.CLEAR", tmp_path / "no folder" / "clear_refs")
    assert not reset_peak("cpu")
    monkeypatch.setattr("producer.machine.environment.CLEAR", tmp_path / "clear_refs")
    for status in ("no file", "status"):
        (tmp_path / "status").write_text("VmRSS: 1 kB\n")
        monkeypatch.setattr("producer.machine.environment.STATUS", tmp_path / status)
        assert not reset_peak("cpu")
        assert peak_memory("cpu") > 10 * MIB


def test_a_gpus_peak_is_reset_and_read_on_that_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both go to torch's count for the device of the run; before CUDA is in use there is nothing to reset, and torch would refuse."""
    peaks = {"cuda:1": 700}
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peaks.update({device: 0}))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peaks[device])
    for initialized, peak in ((False, 700), (True, 0)):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda initialized=initialized: initialized)
        assert reset_peak("cuda:1")
        assert peak_memory("cuda:1") == peak


@pytest.mark.parametrize(
    ("flags", "exact"), [("avx2 fma", False), ("avx2 avx512f avx512_vnni", True), ("avx2 avx_vnni", True), ("asimd", True), (None, True)]
)
def test_only_an_x86_without_vnni_lacks_8_bit_products(
    flags: str | None, exact: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's list of a processor's features decides; where there is none, nothing is said against the processor."""
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"model name : x\nflags : {flags}\n")
    monkeypatch.setattr(environment_module, "CPU", tmp_path / "cpuinfo")
    assert has_8_bit_products() == exact
