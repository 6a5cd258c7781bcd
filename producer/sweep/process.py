"""One cell in a process of its own, which never outlives the sweep that started it.

An orphaned cell would write the same runs as a sweep started after it. So a cell asks the kernel (on Linux) to kill it when its parent
dies; it loses only what it had not committed.
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
    """Start a cell; `environment` is added to this process's."""
    return subprocess.Popen(
        command.argv,
        env={**os.environ, **environment, PARENT: str(os.getpid())},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,  # Ctrl-C at a terminal reaches a whole group: with the signal handed on it would be two, and two stop at once
    )


def wait(command: Command, process: "subprocess.Popen[str]") -> Finished:
    """Wait for a cell to end, and return its outcome."""
    stdout, stderr = process.communicate()
    said = [line for line in stderr.splitlines() if line.strip()]
    reason = "" if process.returncode == 0 else (said[-1] if said else _how_it_ended(process.returncode))
    return Finished(command, process.returncode, tuple(stdout.split()), reason)


def end_with_parent() -> None:
    """In a cell: ask to be killed when the sweep is, and end now if it already was."""
    parent = os.environ.pop(PARENT, None)
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit(1)


def _how_it_ended(exit_code: int) -> str:
    return f"killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit {exit_code}"
