"""Many writers, crashes and signals: what was acknowledged is there, and nothing else is half there."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from store_tiny import tiny_items, tiny_run, write_runs

from schemas.errors import HedgemarkError, RunConflictError, UsageError
from store import init_store, open_reader, open_writer
from store.upkeep.garbage import collect_garbage
from store.upkeep.history import diff_snapshots, history
from store.upkeep.tags import tag_snapshot
from store.upkeep.verify import verify_store

WORKER = Path(__file__).parents[1] / "support" / "store_worker.py"


@pytest.fixture(params=["local", "s3"])
def backend(request, tmp_path):
    """Return the address of an empty store on each backend."""
    if request.param == "local":
        address = str(tmp_path / "store")
    else:
        request.getfixturevalue("s3_credentials")
        address = request.getfixturevalue("seaweedfs").new_address()
    init_store(address)
    return address


def _start(address: str, first: int, count: int, acknowledged: Path, *flags: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(WORKER.parent)}
    return subprocess.Popen([sys.executable, str(WORKER), address, str(first), str(count), str(acknowledged), *flags], env=environment)


def _acknowledged(folder: Path) -> dict[str, str]:
    lines = [line for path in folder.glob("*.ack") for line in path.read_text().splitlines()]
    return dict(line.split() for line in lines)


def _present(address: str) -> dict[str, str]:
    return dict(open_reader(address).catalog.select("name", "digest").iter_rows())


def _write_at_once(address: str, folder: Path, writers: int, runs: int, *flags: str) -> None:
    workers = [_start(address, 1000 * number, runs, folder / f"{number}.ack", *flags) for number in range(writers)]
    codes = [worker.wait(600) for worker in workers]
    assert "--unlocked" in flags or codes == [0] * writers


def _kill_repeatedly(address: str, folder: Path, kills: int) -> None:
    """Start a writer, wait for its first acknowledgement, kill it at a random moment; again."""
    for number in range(kills):
        path = folder / f"{number}.ack"
        worker = _start(address, 1000 * number, 10_000, path)
        while worker.poll() is None and not (path.exists() and path.read_text()):
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.5))
        worker.kill()
        worker.wait()


def _check_after_crashes(address: str, folder: Path) -> None:
    acknowledged, present = _acknowledged(folder), _present(address)
    assert acknowledged and acknowledged.items() <= present.items()
    assert verify_store(address).problems == []  # every run that is visible is whole
    time.sleep(1)  # ages count in whole seconds: what was written within the running one is not garbage yet
    collect_garbage(address, timedelta(0), sessions_closed=True)
    assert collect_garbage(address, timedelta(0), sessions_closed=True).bytes == 0
    assert _present(address) == present and verify_store(address).problems == []


def test_writers_at_once_lose_nothing(backend, tmp_path):
    """Two spawned writers at once: acknowledged equals present."""
    _write_at_once(backend, tmp_path, writers=2, runs=6)
    assert _acknowledged(tmp_path) == _present(backend) and len(_present(backend)) == 12


@pytest.mark.slow
def test_four_writers_lose_nothing(backend, tmp_path):
    """Four spawned writers of 25 runs each: acknowledged equals present."""
    _write_at_once(backend, tmp_path, writers=4, runs=25)
    assert _acknowledged(tmp_path) == _present(backend) and len(_present(backend)) == 100


@pytest.mark.slow
def test_writers_without_the_lock_lose_runs(store_url, tmp_path):
    """With the lock disabled the same writers lose acknowledged runs, so the tests above can see it."""
    _write_at_once(store_url, tmp_path, 4, 25, "--unlocked")
    assert set(_acknowledged(tmp_path)) - set(_present(store_url))


def test_killed_writer_loses_nothing_acknowledged(backend, tmp_path):
    """kill -9 of a writer twice: acknowledged runs read back bit for bit, gc removes the debris."""
    _kill_repeatedly(backend, tmp_path, kills=2)
    _check_after_crashes(backend, tmp_path)


@pytest.mark.slow
def test_writer_killed_25_times_loses_nothing_acknowledged(backend, tmp_path):
    """kill -9 of a writer 25 times: acknowledged runs read back bit for bit, gc removes the debris."""
    _kill_repeatedly(backend, tmp_path, kills=25)
    _check_after_crashes(backend, tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("s3_credentials")
def test_server_killed_in_mid_commit_loses_nothing_acknowledged(tmp_path, tmp_path_factory):
    """kill -9 of the S3 server while a writer commits: after its restart every acknowledged run is whole."""
    from store_servers import need, start_seaweedfs

    need("weed")
    server = start_seaweedfs(tmp_path_factory)
    try:
        address = server.new_address()
        init_store(address)
        worker = _start(address, 0, 10_000, tmp_path / "0.ack")
        while worker.poll() is None and len(_acknowledged(tmp_path)) < 3:
            time.sleep(0.01)
        server.kill()
        worker.kill()
        worker.wait()
        server.start()
        _check_after_crashes(address, tmp_path)
    finally:
        server.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_commits_what_is_pending(number, store_url):
    """SIGTERM, or the terminal being closed, lets the writer finish, commit and leave with the shell's code for it."""
    code = (
        "import sys, time; from store_tiny import *; from store import open_writer\n"
        "items = tiny_items()\n"
        f"with open_writer({store_url!r}) as writer:\n"
        "    writer.write(items, tiny_run(items)); print('ready', flush=True); time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(WORKER.parent)}
    worker = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    assert worker.stdout is not None and worker.stdout.readline() == b"ready\n"
    assert open_reader(store_url).catalog.is_empty()
    worker.send_signal(number)
    assert worker.wait(60) == 128 + number
    worker.stdout.close()
    assert len(_present(store_url)) == 1


def test_commit_is_made_when_it_is_due(store_url):
    """A batch commits by itself once its interval has passed, without a further write."""
    items = tiny_items()
    with open_writer(store_url, interval_s=0.5) as writer:
        writer.write(items, tiny_run(items))
        deadline = time.monotonic() + 30
        while not _present(store_url) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(_present(store_url)) == 1


def test_batch_is_one_commit(store_url):
    """Runs written within the interval share one commit."""
    items = tiny_items()
    with open_writer(store_url) as writer:
        for seed in range(5):
            writer.write(items, tiny_run(items, seed=seed))
    assert history(store_url)["runs"].to_list() == [5, 0, 0]


def test_writers_of_the_same_items_are_rebased(backend):
    """Two open writers that bring the same new items, and one equal run, both land."""
    items = tiny_items()
    with open_writer(backend) as one, open_writer(backend) as two:
        one.write(items, tiny_run(items, seed=1))
        one.write(items, tiny_run(items, seed=2))
        two.write(items, tiny_run(items, seed=2))
        two.write(items, tiny_run(items, seed=3))
    assert len(_present(backend)) == 3 and verify_store(backend).problems == []


def test_conflict_found_at_commit_costs_only_the_conflicting_run(store_url):
    """A run that another writer brought with other content is reported; the rest of the batch lands."""
    items = tiny_items()
    theirs, ours, other = tiny_run(items), tiny_run(items, logit_seed=1), tiny_run(items, seed=9)
    with pytest.raises(RunConflictError, match=ours.key.name), open_writer(store_url) as late:
        late.write(items, ours)
        late.write(items, other)
        write_runs(store_url, items, [theirs])
    assert _present(store_url) == {theirs.key.name: theirs.digest, other.key.name: other.digest}


def test_failing_upload_is_never_committed(store_url, monkeypatch):
    """A write that fails half way leaves no part of its run in the next commit."""
    items = tiny_items()
    first, second = tiny_run(items), tiny_run(items, seed=1)
    with open_writer(store_url) as writer:
        writer.write(items, first)
        with monkeypatch.context() as patch:
            whole = writer._keys.set_many
            patch.setattr(writer._keys, "set_many", lambda nodes: (whole(list(nodes)[:3]), (_ for _ in ()).throw(OSError("disk full"))))
            with pytest.raises(OSError, match="disk full"):
                writer.write(items, second)
    assert list(_present(store_url)) == [first.key.name] and verify_store(store_url).problems == []


def test_diff_and_tags_tell_versions_apart(store_url):
    """`diff` lists added and replaced runs with the largest logit change, and a tag keeps a snapshot readable."""
    items = tiny_items()
    old, new, other = tiny_run(items), tiny_run(items, logit_seed=1), tiny_run(items, seed=4)
    write_runs(store_url, items, [old])
    tag_snapshot(store_url, "v1")
    with open_writer(store_url) as writer:
        writer.write(items, new, replace=True)
        writer.write(items, other)
    changes = {row["change"]: row for row in diff_snapshots(store_url, "v1", open_reader(store_url).snapshot).to_dicts()}
    own = ~(old.logits != old.logits)
    assert changes["added"]["name"] == other.key.name
    assert changes["replaced"]["largest_logit_change"] == pytest.approx(abs(old.logits - new.logits)[own].max())
    assert changes["replaced"]["items_changed"] == len(items)
    assert open_reader(store_url, "v1").run(old.key.name).digest == old.digest
    with pytest.raises(UsageError, match="tags do not move"):
        tag_snapshot(store_url, "v1")
    for name in ("../up", "", "a/b", "x" * 65):
        with pytest.raises(UsageError, match="is not a name"):
            tag_snapshot(store_url, name)


def test_gc_keeps_what_tags_and_sessions_can_reach(store_url):
    """gc keeps replaced runs of history and tags, and refuses an age that could hurt an open session."""
    items = tiny_items(n_items=300)
    before = write_runs(store_url, items, [tiny_run(items)])
    with open_writer(store_url) as writer:
        writer.write(items, tiny_run(items, logit_seed=1), replace=True)
    collect_garbage(store_url, timedelta(0), sessions_closed=True)
    assert open_reader(store_url, before).run(tiny_run(items).key.name).digest == tiny_run(items).digest
    with pytest.raises(UsageError, match="open writer"):
        collect_garbage(store_url, timedelta(days=6))


def test_gc_of_a_week_leaves_an_open_writer_alone(store_url):
    """gc while a writer is open does not take the chunks that it has not committed yet."""
    items = tiny_items(n_items=300)
    run = tiny_run(items)
    with open_writer(store_url) as writer:
        writer.write(items, run)
        collect_garbage(store_url)
    assert open_reader(store_url).run(run.key.name).digest == run.digest


def test_full_disk_costs_nothing_committed(store_url):
    """Where no file may grow, a write is one sentence about the disk, not about damage, and the store is as it was before."""
    items = tiny_items()
    write_runs(store_url, items, [tiny_run(items)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    many = tiny_items(n_items=5000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(HedgemarkError, match="cannot be written, the runs committed before are intact"):
            write_runs(store_url, many, [tiny_run(many)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(_present(store_url)) == [tiny_run(items).key.name] and verify_store(store_url).problems == []


def test_file_that_a_killed_writer_left_unfinished_is_debris(store_url):
    """A half-written snapshot of a killed writer keeps nobody from reading, and gc removes it."""
    snapshot = Path(store_url) / "snapshots" / f"{open_reader(store_url).snapshot}#1"
    snapshot.write_bytes(os.urandom(100_000))
    assert open_reader(store_url).catalog.is_empty() and verify_store(store_url).problems == []
    assert collect_garbage(store_url).bytes == 0 and snapshot.exists()  # it may belong to a writer at work
    assert collect_garbage(store_url, timedelta(0), sessions_closed=True).bytes >= 100_000 and not snapshot.exists()
