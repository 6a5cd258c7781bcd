"""Free memory: what the host has, within the limits of all groups that this process is in; and what says that there is none."""

from pathlib import Path

import pytest

from producer.machine.free_memory import free_memory, out_of_memory

pytestmark = pytest.mark.producer
HOST = 4_000 * 1024
SLURM = "/system.slice/job_7/step_0/task_0"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host of 9 MB, 4 MB of them available, whose folder of groups is empty; returns that folder."""
    for name in ("MEMINFO", "PROCESS_GROUPS", "GROUPS"):
        monkeypatch.setattr(f"producer.machine.free_memory.{name}", tmp_path / name)
    (tmp_path / "MEMINFO").write_text("MemTotal:  9000 kB\nMemAvailable:  4000 kB\n")
    return tmp_path


def enter(machine: Path, *groups: str) -> None:
    (machine / "PROCESS_GROUPS").write_text("".join(f"{group}\n" for group in groups))


def limit_to(group: Path, limit: str) -> None:
    """Write what a group of version 2 says: 2.5 MB in use, 1 MB of it only caches files."""
    group.mkdir(parents=True, exist_ok=True)
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.current").write_text("2500000\n")
    (group / "memory.stat").write_text("anon 1500000\ninactive_file 1000000\n")


def limit_version_1_to(group: Path, limit: str) -> None:
    """Write the same in the words of version 1, where a group's own pages are counted apart from those of groups below it."""
    group.mkdir(parents=True, exist_ok=True)
    (group / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (group / "memory.usage_in_bytes").write_text("2500000\n")
    (group / "memory.stat").write_text("inactive_file 7\ntotal_inactive_file 1000000\n")


def test_without_groups_the_host_decides() -> None:
    """Where no group is to be seen, what is available on the host is free."""
    assert free_memory("cpu") == HOST


@pytest.mark.parametrize(("limit", "free"), [("max", HOST), ("3000000", 1_500_000)])
def test_a_container_limits_by_the_topmost_folder(limit: str, free: int, machine: Path) -> None:
    """A container sees its own group as the root; pages that only cache files are free."""
    enter(machine, "0::/")
    limit_to(machine / "GROUPS", limit)
    assert free_memory("cpu") == free


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_limit_of_any_group_above_binds(depth: int, machine: Path) -> None:
    """A Slurm job's limit stands at the job, its step or its task, and the process is in a group below."""
    enter(machine, f"0::{SLURM}")
    for level in range(1, 5):
        limit_to(machine.joinpath("GROUPS", *SLURM.split("/")[1 : level + 1]), "3000000" if level == depth else "max")
    assert free_memory("cpu") == 1_500_000


def test_the_tightest_of_several_limits_binds(machine: Path) -> None:
    """A step with a looser limit than its job's does not hide the job's."""
    enter(machine, f"0::{SLURM}")
    limit_to(machine / "GROUPS/system.slice/job_7", "3000000")
    limit_to(machine / "GROUPS/system.slice/job_7/step_0", "3500000")
    assert free_memory("cpu") == 1_500_000


@pytest.mark.parametrize("place", ["", "slurm/job_7", "slurm/job_7/step_0"])
def test_groups_of_version_1_bind_as_well(place: str, machine: Path) -> None:
    """The memory controller has folders and file names of its own; in a container only the topmost of them is there."""
    enter(machine, "9:cpu,cpuacct:/elsewhere", "4:hugetlb,memory:/slurm/job_7/step_0", "0::/")
    limit_version_1_to(machine / "GROUPS/memory", str(2**63 - 4096))
    limit_version_1_to(machine / "GROUPS/memory" / place, "3000000")
    limit_version_1_to(machine / "GROUPS/memory/elsewhere", "2600000")
    assert free_memory("cpu") == 1_500_000


@pytest.mark.parametrize(
    ("error", "means_it"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_what_says_that_memory_ran_out(error: Exception, means_it: bool) -> None:
    """Torch has an error of its own for a device's memory only; the host's and cuBLAS's are told by their texts."""
    assert out_of_memory(error) == means_it
