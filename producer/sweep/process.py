"""Run one cell in a separate process that (on Linux) never outlives the sweep that started it.

An orphaned cell would write the same runs as the next sweep. So each cell asks the kernel to kill it when its parent dies; only what it
has not committed is lost.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping

from producer.sweep.cells import Command, Finished

PARENT = "HEDGEMARK_SWEEP_PID"
PR_SET_PDEATHSIG = 1


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


def end_with_parent() -> None:
    """Called in a cell: ask the kernel to kill this process when the sweep dies, and exit now if the sweep is already dead."""
    parent = os.environ.pop(PARENT, None)
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit(1)
