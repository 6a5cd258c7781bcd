"""`make fuzz`: damaged stores, caches, files, addresses and model folders against the three commands.

A case fails where a command ends in a traceback, takes longer than 10 s of processor time or sleeps for 30 s, needs more than 1 GB
beyond what it starts with, prints a control character, or prints anything but what it prints of the undamaged store while it exits as
if nothing were wrong. A worker process runs the cases one after the other, so that a hang or a crash is one case's and the rest goes
on; the same seed makes the same cases. What libraries print past Python is caught in a file and judged too.
"""

import argparse
import contextlib
import faulthandler
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SECONDS, BYTES = 10.0, 2**30
ASLEEP = 30.0  # seconds without a thread that works or wants to, for what hangs; a busy machine alone is no failure
POLL = 0.2
PROGRESS = 500  # cases between two lines about how far a kind is
ACCEPTED = {0, 1, 2, 3, 4, 5}
# A carriage return starts a line of a progress bar anew; line feeds and tabs are in every table.
STEERING = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def work(kind: str, seed: int, first: int, last: int) -> None:
    """Run cases and tell a line before and after each on what was stdout. This is the worker."""
    import numpy as np
    from kinds import KINDS

    faulthandler.register(signal.SIGUSR1, all_threads=True)
    told = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints past Python goes to the file that is stderr here, and breaks no line that is told
    folder = Path(os.environ["FUZZ_FOLDER"])
    for case in range(first, last):
        print(json.dumps({"begin": case}), file=told)
        here = folder / f"case-{case}"
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        os.chdir(here)  # what a command writes beside itself goes with the case
        os.environ["HEDGEMARK_CACHE"] = os.environ["XDG_CACHE_HOME"] = str(here / "cache")
        trial = KINDS[kind](np.random.default_rng([seed, case, *kind.encode()]), here)
        print(json.dumps({"started": case}), file=told)
        faults = [fault for line, truth in zip(*trial, strict=True) if (fault := judge(line, truth))]
        os.chdir(folder)
        shutil.rmtree(here, ignore_errors=True)
        print(json.dumps({"end": case, "faults": faults}), file=told)


def judge(line: tuple[str, ...], truth: str | None) -> str:
    """Run one command line and say what is wrong with how it ended; "" where nothing is."""
    from kinds import invoke

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    os.ftruncate(2, 0)
    result = invoke(line)
    past_python = os.pread(2, 1_000_000, 0).decode(errors="replace")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    fault = wrong_on_screen(result.output, past_python)
    if result.exception and not isinstance(result.exception, SystemExit):
        fault = f"{type(result.exception).__name__}: {str(result.exception)[:200]}"
    elif result.exit_code not in ACCEPTED:
        fault = f"exit code {result.exit_code}"
    elif grown > BYTES:
        fault = f"{grown / 2**30:.1f} GB"
    elif truth is not None and result.exit_code in (0, 1, 3, 5) and result.stdout != truth and not said_so(result.exit_code, result.stderr):
        fault = f"exit code {result.exit_code} and another output: {result.stdout[:300]}"
    return fault and f"{' '.join(line)}: {fault}"


def wrong_on_screen(output: str, past_python: str) -> str:
    """Say what no terminal may be shown: a control character, or a traceback of Python's or a library's own."""
    shown = output + past_python
    if steering := STEERING.search(shown):
        return f"the control character {steering[0]!a} in {shown[max(steering.start() - 200, 0) :][:300]!a}"
    if "internal error" in output or "Traceback (most recent call last)" in shown or "panicked at" in past_python:
        return f"a traceback on the screen: {shown[-500:]}"
    return ""


def said_so(code: int, stderr: str) -> bool:
    """Whether the command ended with an error in one sentence."""
    return code == 5 and "Error: " in stderr


def run_kind(kind: str, seed: int, cases: int, folder: Path) -> int:
    """Run the cases of one kind, starting a new worker where one hung or died; print what fails at once, and return how many did."""
    failed = 0
    first = 0
    while first < cases:
        for case, faults in watch(kind, seed, first, cases, folder):
            failed += bool(faults)
            for fault in faults:
                print(f"{kind} {case}: {fault}"[:3_000], flush=True)
            first = case + 1
            if first % PROGRESS == 0:
                print(f"{kind}: {first} of {cases} cases, {failed} failed", file=sys.stderr, flush=True)
    return failed


def watch(kind: str, seed: int, first: int, last: int, folder: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield each case with its faults; the last is the one that the worker did not survive, if there is one."""
    command = [sys.executable, __file__, "--worker", kind, str(seed), str(first), str(last)]
    environment = os.environ | {"FUZZ_FOLDER": str(folder)}
    past_python = folder / "stderr"
    with past_python.open("a+") as errors:
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
    assert worker.stdout is not None
    began = [0.0, 0.0]  # wall clock and processor time when the case under way began; 0 between cases
    hung: list[str] = []

    def stop_a_hang() -> None:
        asleep, at = 0.0, 0.0
        while worker.poll() is None:
            before, (at, base) = at, tuple(began)  # at once: between the two a case may end
            asleep = asleep + POLL if before == at and not wants_to_work(worker.pid) else 0.0
            used = busy(worker.pid) - base
            if at and (asleep > ASLEEP or used > SECONDS):
                hung.append(f"hung: {used:.1f} s of processor time, {asleep:.0f} s asleep")
                worker.send_signal(signal.SIGUSR1)  # says where it is
                time.sleep(1)
                worker.kill()
            time.sleep(POLL)

    threading.Thread(target=stop_a_hang, daemon=True).start()
    case = first
    for line in worker.stdout:
        if not line.endswith("\n"):  # the end of what a worker that was stopped had begun to say
            break
        told = json.loads(line)
        if "begin" in told:
            case = told["begin"]
        elif "started" in told:
            began[:] = [time.monotonic(), busy(worker.pid)]
        else:
            began[:] = [0.0, 0.0]
            yield told["end"], told["faults"]
            case = told["end"] + 1
    code = worker.wait()
    if case < last:
        yield case, [f"{hung[0] if hung else f'the process died with {code}'}: {past_python.read_text(errors='replace')[-2_000:]}"]


def busy(pid: int) -> float:
    """Return the processor seconds that a process has used; 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wants_to_work(pid: int) -> bool:
    """Return whether any thread of a process is running, or would if a processor were free; True where the system does not say."""
    states = []
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # the thread has just ended
            states.append(path.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0])
    return not states or not set(states) <= {"S"}


def main() -> None:
    """Run all kinds, print a line each, and exit with 1 where anything failed."""
    from kinds import KINDS

    parser = argparse.ArgumentParser(prog="make fuzz", description="Damage what the commands read and watch how they take it.")
    parser.add_argument("--cases", type=int, default=500, help="in all, shared evenly among the kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="only this kind; repeatable")
    chosen = parser.parse_args()
    kinds = chosen.kind or list(KINDS)
    cases = -(-chosen.cases // len(kinds))

    def run(kind: str) -> int:
        with tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as folder:
            return run_kind(kind, chosen.seed, cases, Path(folder))

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each starts a process that does the work
        counts = dict(zip(kinds, pool.map(run, kinds), strict=True))
    for kind, failed in counts.items():
        print(f"{kind:8} {cases} cases, {failed} failed")
    sys.exit(1 if any(counts.values()) else 0)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    os.environ.setdefault("FUZZ_FOLDER", tempfile.gettempdir())
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], *map(int, sys.argv[3:6]))
    else:
        main()
