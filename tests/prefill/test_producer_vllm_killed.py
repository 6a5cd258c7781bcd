"""Backend `vllm`, killed: the command goes on where it was, and no process of vLLM stays. Runs in vLLM's environment (`make test-vllm`)."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from producer_standin import save_standin
from stored_runs import same, stored
from vllm_here import needs_vllm

from producer.machine import journal

pytestmark = pytest.mark.producer
KILLS, ITEMS = 20, 2000  # vLLM starts for each kill, which takes half a minute, and two on a busy machine
STARTING = 4  # of the kills strike before vLLM is asked anything
ENDS_WITHIN = 120  # seconds; an engine that begins to import vLLM ends when it asks for its platform, before it takes memory
# Runs `produce` and writes down how many items vLLM is asked each time.
HOOKED = """
import os, sys
from producer.backends import vllm
from producer.cli.main import main
counted, ask = os.open(sys.argv.pop(1), os.O_APPEND | os.O_CREAT | os.O_WRONLY), vllm._ask

def counting(engine, adapter, prompted, items):
    os.write(counted, f"{len(items)}\\n".encode())
    return ask(engine, adapter, prompted, items)

vllm._ask = counting
main()
"""
# Starts a process as vLLM starts its engine, which calls what the entry point names and then stays.
STARTER = """
import multiprocessing, os, sys, time
from producer.machine.parent import STARTS_VLLM, end_vllm_engine_with_command
if sys.argv[1] == "ours":
    os.environ[STARTS_VLLM] = str(os.getpid())

def engine():
    end_vllm_engine_with_command()
    print("up", flush=True)
    time.sleep(600)

process = multiprocessing.get_context("fork").Process(target=engine)
process.start()
process.join()
"""


@needs_vllm
@pytest.mark.slow
def test_a_run_killed_at_twenty_random_moments_asks_little_twice(tmp_path: Path) -> None:
    """Kill -9 at twenty random moments within one run: the store is the undisturbed one, below 10 % is asked twice, no process stays."""
    model = save_standin(tmp_path / "standin", hidden_size=128, intermediate_size=128)
    alone, counted, moments = tmp_path / "alone", tmp_path / "counted", random.Random(0)
    first = hooked(model, alone, tmp_path / "undisturbed")
    assert first.wait() == 0
    assert asked(alone) == ITEMS and not left_behind(first)
    for kill in range(KILLS):
        moment = asked(counted) + moments.uniform(0, ITEMS / (KILLS - STARTING))
        process = hooked(model, counted, tmp_path / "store")
        begun = partial(engine_begun, process) if kill < STARTING else partial(asked_more, counted, moment)
        while not begun() and process.poll() is None:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 2 if kill < STARTING else 0.01))
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it came to its end too soon to be killed twenty times"
        assert not left_behind(process)
    assert hooked(model, counted, tmp_path / "store").wait() == 0
    run = stored(tmp_path / "store")
    same(run, stored(tmp_path / "undisturbed"))
    assert any(f"of {ITEMS:,} answers are those to an earlier command, which was cut off" in note for note in run.env.notes)
    assert not list((tmp_path / "cache" / journal.FOLDER).rglob("*.answers"))
    twice = asked(counted) / ITEMS - 1
    print(f"{twice:.1%} asked twice over {KILLS} kills, {STARTING} of them while vLLM's engine started")
    assert 0 <= twice < 0.1


@pytest.mark.parametrize(("whose", "stays"), [("ours", False), ("another's", True)])
@pytest.mark.skipif(sys.platform != "linux", reason="vLLM runs on Linux")
def test_an_engine_ends_with_the_command_that_started_it(whose: str, stays: bool) -> None:
    """Kill -9 of the command ends its engine; a vLLM that somebody else started beside Hedgemark is left as it is."""
    process = subprocess.Popen([sys.executable, "-c", STARTER, whose], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout
    with process.stdout as said:
        assert said.readline() == b"up\n"
    process.kill()
    process.wait()
    assert bool(left_behind(process, within=0.5 if stays else ENDS_WITHIN)) == stays


def hooked(model: Path, counted: Path, store: Path) -> "subprocess.Popen[bytes]":
    """Start `produce` on vLLM in a session of its own, with answers kept on disk as soon as they are there."""
    words = ["--model", str(model), "--task", "urn", "--limit", str(ITEMS), "--dtype", "float32", "--backend", "vllm"]
    settings = {"HEDGEMARK_CACHE": str(counted.parent / "cache"), "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    argv = [sys.executable, "-c", HOOKED, str(counted), *words, "--checkpoint-every", "0s", "--store", str(store)]
    with (counted.parent / "log").open("ab") as log:
        return subprocess.Popen(argv, env=os.environ | settings, stdout=log, stderr=log, start_new_session=True)


def asked(counted: Path) -> int:
    """Return how many items vLLM was asked so far."""
    return sum(map(int, counted.read_text().split())) if counted.exists() else 0


def asked_more(counted: Path, moment: float) -> bool:
    """Return whether vLLM was asked more items than so many."""
    return asked(counted) > moment


def engine_begun(process: "subprocess.Popen[bytes]") -> bool:
    """Return whether a command has started its engine: beside the two there is a process of Python's that watches over resources."""
    return len(dict(in_session(process.pid))) >= 3


def left_behind(process: "subprocess.Popen[bytes]", within: float = ENDS_WITHIN) -> list[str]:
    """Return the processes of an ended command's session that do not end by themselves within so many seconds, which are then killed."""
    until = time.monotonic() + within
    while members := dict(in_session(process.pid)):
        if time.monotonic() > until:
            for pid in members:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return list(members.values())
        time.sleep(0.1)
    return []


def in_session(session: int) -> Iterator[tuple[int, str]]:
    """Yield number and name of every running process of a session."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, rest = path.read_text().rpartition(")")
            state, _, _, its_session, *_ = rest.split()
            if int(its_session) == session and state not in "ZX":
                yield int(path.parent.name), name.partition("(")[2]
