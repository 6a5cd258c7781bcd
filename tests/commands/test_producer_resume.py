"""Resume, for real: processes killed at any moment, workers that die, a disk that fills up. Minutes long, so marked slow."""

import itertools
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from producer_standin import save_standin

from producer.machine import journal
from schemas.errors import StoreNotFoundError
from store import open_reader

pytestmark = [pytest.mark.producer, pytest.mark.slow]
KILLS = 20
PLAN = """
model = "{model}"
task = ["urn", "facts"]
prompt = ["base", "shared"]
limit = 40
method = ["dense", "magnitude"]
level = ["0.3", "0.5"]
"""


class Undisturbed(NamedTuple):
    """Digests by run name, and seconds."""

    runs: dict[str, str]
    seconds: float


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a sweep of 12 runs in 3 cells."""
    folder = tmp_path_factory.mktemp("sweep")
    path = folder / "sweep.toml"
    path.write_text(PLAN.format(model=save_standin(folder / "standin")))
    return path


@pytest.fixture(scope="module")
def undisturbed(plan: Path) -> Undisturbed:
    """Return what a sweep that nothing disturbed stored, and how long it took."""
    store, clock = plan.parent / "undisturbed", time.monotonic()
    assert start(plan, store).wait() == 0
    return Undisturbed(content(store), time.monotonic() - clock)


def start(plan: Path, store: Path, *more: str) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-m", "producer", "--plan", str(plan), "--store", str(store), "--workers", "2", *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HEDGEMARK_CACHE": str(plan.parent / "cache")}
    return subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL)


def content(store: Path) -> dict[str, str]:
    """Return the digests of the runs in a store by name; none where there is no store yet."""
    try:
        catalog = open_reader(str(store)).catalog
    except StoreNotFoundError:
        return {}
    return dict(zip(catalog["name"], catalog["digest"], strict=True))


def test_a_sweep_killed_again_and_again_ends_as_an_undisturbed_one(plan: Path, undisturbed: Undisturbed) -> None:
    """Kill -9 at 20 random moments of unfinished sweeps, each followed by the same command: every store ends the same, run for run."""
    assert len(undisturbed.runs) == 12
    moments, kills = random.Random(0), 0
    for number in itertools.count():
        store, found = plan.parent / f"killed-{number}", dict[str, str]()
        while killed(start(plan, store), moments.uniform(0, undisturbed.seconds) if kills < KILLS and len(found) < 12 else None):
            found = content(store)
            assert found.items() <= undisturbed.runs.items()
            kills += len(found) < 12  # others met a sweep that had only to end
        assert content(store) == undisturbed.runs
        if kills == KILLS:
            return


def killed(sweep: "subprocess.Popen[bytes]", seconds: float | None) -> bool:
    """Kill a sweep after some time; return False where it came to its end, which is good."""
    try:
        assert sweep.wait(timeout=seconds) == 0
    except subprocess.TimeoutExpired:
        sweep.kill()
        sweep.wait()
        return True
    return False


def test_a_terminated_sweep_commits_and_goes_on(plan: Path, undisturbed: Undisturbed) -> None:
    """SIGTERM ends the sweep with the shell's code for it; the same command completes it."""
    store = plan.parent / "terminated"
    sweep = start(plan, store)
    while not store.exists() and sweep.poll() is None:
        time.sleep(0.1)
    sweep.terminate()
    assert sweep.wait() == 128 + signal.SIGTERM
    assert start(plan, store).wait() == 0
    assert content(store) == undisturbed.runs


def test_a_ray_sweep_survives_a_killed_worker(plan: Path, undisturbed: Undisturbed) -> None:
    """Two local Ray workers make the same store as the local executor, even when one is killed in the middle."""
    pytest.importorskip("ray")
    store = plan.parent / "ray"
    sweep = start(plan, store, "--executor", "ray")
    deadline = time.monotonic() + 300
    while not (workers := list(ray_workers(store))) and sweep.poll() is None:
        assert time.monotonic() < deadline, "no worker ever ran a cell"
        time.sleep(0.2)
    time.sleep(3)
    os.kill(workers[0], signal.SIGKILL)
    assert sweep.wait(timeout=600) == 0
    assert content(store) == undisturbed.runs


def test_a_run_on_a_lost_ray_worker_goes_on_where_it_was(tmp_path: Path) -> None:
    """A worker that dies in the middle of a run loses what was not yet kept: its cell is tried again and takes every answer kept."""
    pytest.importorskip("ray")
    plan, store = tmp_path / "sweep.toml", tmp_path / "ray"
    plan.write_text('model = "ref-s"\ntask = "urn"\nmethod = "dense"\nlimit = 800\nbatch-tokens = 128\ncheckpoint-every = "0s"\n')
    assert start(plan, tmp_path / "alone").wait() == 0
    sweep = start(plan, store, "--executor", "ray")
    journals, deadline = tmp_path / "cache" / journal.FOLDER, time.monotonic() + 300
    while sum(kept := [answers_in(path) for path in journals.glob("*/*")]) < 100 and sweep.poll() is None:
        assert time.monotonic() < deadline, "no cell ever kept an answer"
        time.sleep(0.1)
    (worker,) = ray_workers(store)
    os.kill(worker, signal.SIGKILL)
    assert sweep.wait(timeout=600) == 0
    runs = [open_reader(str(folder)).run(name) for folder in (tmp_path / "alone", store) for name in content(folder)]
    np.testing.assert_allclose(runs[1].logits, runs[0].logits, atol=1e-4)
    (note,) = (note for note in runs[1].env.notes if "cut off" in note)
    taken = int(note.split()[0].replace(",", ""))
    assert sum(kept) <= taken < 800, note
    print(note)


def answers_in(path: Path) -> int:
    """Return how many answers a file of the journal holds; the first record says under which circumstances they were given."""
    return max(sum(1 for _ in journal._records(path, path.parent.name)) - 1, 0)


def test_a_full_disk_is_a_clear_error_and_loses_nothing(plan: Path) -> None:
    """Where no file may grow, the command says so in one sentence with exit 5, and the runs committed before are intact."""
    store, model = plan.parent / "full", str(plan.parent / "standin")
    base = [sys.executable, "-m", "producer", "--model", model, "--store", str(store), "--task", "urn"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HEDGEMARK_CACHE": str(plan.parent / "cache")}
    subprocess.run([*base, "--limit", "20"], env=environment, check=True)
    before = content(store)
    base += ["--limit", "1000"]
    limit = 16_384  # bytes of any one file: enough for metadata, too little for the logits of 1,000 items
    failed = subprocess.run(
        base,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert failed.returncode == 5, failed.stderr
    assert "Traceback" not in failed.stderr
    assert "cannot be written, the runs committed before are intact" in failed.stderr.strip().splitlines()[-1]
    assert content(store) == before
    assert subprocess.run(base, env=environment, check=False).returncode == 0


def ray_workers(store: Path) -> Iterator[int]:
    """Yield the Ray workers that run a cell which writes to this store; other Ray processes of this user are not touched."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            cell, parent = (entry / "cmdline").read_bytes(), int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            name = Path(f"/proc/{parent}/cmdline").read_bytes()
        except OSError:
            continue
        if str(store).encode() in cell.split(b"\0") and name.startswith(b"ray::run"):
            yield parent
