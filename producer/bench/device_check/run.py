"""Run the steps, each in a process of its own that is killed at its time limit, and collect what they found until then."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from producer.bench.device_check.finding import Finding, Where
from producer.bench.device_check.steps import STEPS

OK, FAILED, TIME_LIMIT = "ok", "FAILED", "time limit"
CORES_EACH = 2  # of the steps that run side by side


class Ended(NamedTuple):
    """How a step ended: OK, FAILED or TIME_LIMIT; its findings; the last lines it printed, if it ended before it was done."""

    name: str
    outcome: str
    seconds: float
    findings: list[Finding]
    last_line: str

    @property
    def fault(self) -> str:
        """Return the first thing that was wrong, "" if nothing was."""
        return next((f"{finding.name}: {finding.fault}" for finding in self.findings if finding.fault), self.last_line)

    def lines(self) -> Iterator[str]:
        """Yield the step in one line, then a line for each finding."""
        yield f"{self.name}: {self.outcome} after {self.seconds:.0f} s{f' ({self.last_line})' if self.last_line else ''}"
        yield from (f"    {finding.line()}" for finding in self.findings)


def run_all(names: Sequence[str], where: Where, folder: Path, limit_factor: float) -> Iterator[Ended]:
    """Yield each step as it ends: first those that need the machine to themselves, then the others side by side.

    folder       : where the processes leave what they found.
    limit_factor : time limits are multiplied by it.
    """
    cores = os.cpu_count() or 1
    for name in [name for name in names if STEPS[name].alone]:
        yield run(name, where, folder, cores, limit_factor)
    with ThreadPoolExecutor(max(1, cores // CORES_EACH)) as pool:
        together = [name for name in names if not STEPS[name].alone]
        running = [pool.submit(run, name, where, folder, min(cores, CORES_EACH), limit_factor) for name in together]
        for ended in as_completed(running):
            yield ended.result()


def run(name: str, where: Where, folder: Path, threads: int, limit_factor: float) -> Ended:
    """Run one step in a process of its own and return how it ended."""
    stem = folder / name.replace(" ", "-")
    results, log = stem.with_suffix(".findings"), stem.with_suffix(".log")
    command = [sys.executable, "-m", "producer.bench.device_check", "--device", where.device, "--inside", name, "--findings", str(results)]
    variables = {"HEDGEMARK_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    clock = time.monotonic()
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [*command, *(["--small"] if where.small else [])],
            stdout=stream, stderr=subprocess.STDOUT, env={**os.environ, **variables}, start_new_session=True,
        )  # fmt: skip
        outcome = ""
        try:
            code = process.wait(STEPS[name].limit * limit_factor)
        except subprocess.TimeoutExpired:
            code, outcome = 0, TIME_LIMIT
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # the step's own children too
                process.wait()
    findings = [Finding(**json.loads(line)) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []
    succeeded = code == 0 and bool(findings) and not any(each.fault for each in findings)
    last_line = "" if code == 0 and findings else f"exit {code}: {_last_line(log)}"
    return Ended(name, outcome or (OK if succeeded else FAILED), time.monotonic() - clock, findings, last_line)


def run_inside(name: str, where: Where, results: Path) -> None:
    """Run one step in this process, and append each finding to a file as soon as it is there."""
    with results.open("a", encoding="utf-8") as stream:
        for finding in STEPS[name].step(where):
            stream.write(f"{json.dumps(finding._asdict(), default=str)}\n")
            stream.flush()


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:400] if lines else "it printed nothing"
