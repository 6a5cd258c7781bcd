"""Run one cell in a separate process that (on Linux) never outlives the sweep that started it.

An orphaned cell would write the same runs as the next sweep. So each cell asks the kernel to kill it when its parent dies; only what it
has not committed is lost.
"""

import os
import signal
import subprocess
from collections.abc import Mapping

from producer.machine.parent import end_with_parent
from producer.sweep.cells import Command, Finished

PARENT = "HEDGEMARK_SWEEP_PID"


def start(command: Command, environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    """Start a cell, with `environment` added to this process's environment variables."""
    return subprocess.Popen(
        command.argv,
        env={**os.environ, **environment, PARENT: str(os.getpid())},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,  # else Ctrl-C would reach the cell from the terminal and from the sweep, and two signals stop it immediately
    )


def wait(command: Command, process: "subprocess.Popen[str]") -> Finished:
    """Wait for a cell to end and return its outcome.

    The reason for a failure is the signal that killed it, or its error message, which may have a line for each run that failed, or else
    the last line that it said.
    """
    stdout, stderr = process.communicate()
    code = process.returncode
    reason = "" if code == 0 else f"killed by {signal.Signals(-code).name}" if code < 0 else _said_last(stderr) or f"exit {code}"
    return Finished(command, code, tuple(stdout.split()), reason)


def _said_last(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [number for number, line in enumerate(lines) if line.startswith("Error: ")]
    return " ".join(lines[errors[-1] if errors else -1 :])


def end_with_sweep() -> None:
    """Called in a cell: end it when the sweep dies, and now if the sweep is already dead."""
    if parent := os.environ.pop(PARENT, None):
        end_with_parent(int(parent))
