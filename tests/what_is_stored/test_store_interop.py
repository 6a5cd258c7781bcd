"""Python 3.11 with icechunk 1 and 3.12 or newer with icechunk 2 write and read each other's stores.

The other interpreter, with the base install, is named by HEDGEMARK_PEER_PYTHON; without it these tests are skipped.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from store_tiny import tiny_items, tiny_run, write_runs

from store import open_reader
from store.repository.repository import open_repository
from store.upkeep.verify import verify_store

PEER = os.environ.get("HEDGEMARK_PEER_PYTHON", "")
pytestmark = pytest.mark.skipif(not PEER, reason="HEDGEMARK_PEER_PYTHON names no other interpreter")

WRITE = """
import icechunk, json, sys
from store_tiny import tiny_items, tiny_run, write_runs
from store import init_store
init_store(sys.argv[1])
items = tiny_items(n_items=300)
run = tiny_run(items, seed=int(sys.argv[2]))
print(json.dumps([icechunk.__version__, run.key.name, run.digest, write_runs(sys.argv[1], items, [run])]))
"""
READ = """
import json, sys
from store import open_reader
from store.upkeep.verify import verify_store
reader = open_reader(sys.argv[1])
print(json.dumps([dict(reader.catalog.select("name", "digest").iter_rows()), verify_store(sys.argv[1]).problems]))
"""


def _peer(code: str, *arguments: str) -> list[object]:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests/support'}"}
    result = subprocess.run([PEER, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return list(json.loads(result.stdout.splitlines()[-1]))


def test_stores_are_read_and_written_both_ways(tmp_path):
    """A store created by either side is written by both in turn, and both see the same runs and no damage."""
    import icechunk

    items = tiny_items(n_items=300)
    for number, first in enumerate(("peer", "self")):
        url = str(tmp_path / first)
        if first == "self":
            from store import init_store

            init_store(url)
            write_runs(url, items, [tiny_run(items, seed=1)])
        version, name, digest, _ = _peer(WRITE, url, "2")
        assert str(version).split(".")[0] != icechunk.__version__.split(".")[0], "the peer must have the other icechunk"
        write_runs(url, items, [tiny_run(items, seed=3 + number)])
        mine = dict(open_reader(url).catalog.select("name", "digest").iter_rows())
        assert mine[name] == digest and len(mine) == (2 if first == "peer" else 3)
        assert verify_store(url).problems == [] and _peer(READ, url) == [mine, []]
        assert open_repository(url).ice.lookup_branch("main") == open_reader(url).snapshot


def test_peer_is_another_interpreter():
    """The peer is not the interpreter that runs the tests."""
    assert Path(PEER).resolve() != Path(sys.executable).resolve()
