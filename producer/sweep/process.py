"""A process that runs the cells of a sweep which are sent to it, and (on Linux) never outlives the sweep.

An orphaned cell would write the same runs as the next sweep. So each process asks the kernel to kill it when its parent dies; only what it
has not committed is lost. What the process does is `producer.cli.cell_worker`.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress

from producer.machine.parent import end_with_parent
from producer.sweep.cells import Command, Finished
from store.command import SIGNALLED

PARENT = "HEDGEMARK_SWEEP_PID"
WORKER = (sys.executable, "-m", "producer.cli.cell_worker")
ENDED = "cell ended with exit code"  # begins the line of stdout with which the process answers to a cell
NO_ANSWER = 5  # exit code of a cell whose process ended as if all were well, but without that line


class CellProcess:
    """A process for cells, one after the other; those of one model share what the first one loaded.

    environment : is added to this process's environment variables.
    n_beside    : processes that share this machine's memory, this one included.
    Raises OSError if it cannot be started.

    Attributes
    ----------
    ended : whether the last cell has ended the process.
    """

    def __init__(self, environment: Mapping[str, str], n_beside: int = 1) -> None:
        self.ended: bool = False
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # `close` closes it
        self._process = subprocess.Popen(
            (*WORKER, str(n_beside)),
            env={**os.environ, **environment, PARENT: str(os.getpid())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            errors="replace",
            process_group=0,  # else Ctrl-C would reach the cell from the terminal and from the sweep, and two signals stop it immediately
        )

    @property
    def is_alive(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def run(self, command: Command) -> Finished:
        """Run a cell and return its outcome, once it has ended.

        The reason for a failure is the signal that killed the process, or the error message, which may have a line for each run that
        failed, or else the last line that it said.
        """
        assert self._process.stdin and self._process.stdout
        said_before = os.fstat(self._stderr.fileno()).st_size
        with suppress(BrokenPipeError):  # it has ended, and its exit code says how
            self._process.stdin.write(json.dumps(command.arguments) + "\n")
            self._process.stdin.flush()
        printed, code = list[str](), None
        for line in self._process.stdout:
            if line.startswith(ENDED):
                code = int(line.removeprefix(ENDED))
                break
            printed.append(line)
        self.ended = code is None or code > SIGNALLED  # what a signal has stopped takes no more cells
        if code is None:
            code = self._process.wait() or NO_ANSWER
        said = os.pread(self._stderr.fileno(), os.fstat(self._stderr.fileno()).st_size - said_before, said_before)
        reason = "" if code == 0 else f"killed by {signal.Signals(-code).name}" if code < 0 else _said_last(said) or f"exit {code}"
        return Finished(command, code, tuple("".join(printed).split()), reason)

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens if the process has ended."""
        self._process.send_signal(number)

    def close(self) -> None:
        """Let the process end, and wait for it."""
        assert self._process.stdin and self._process.stdout
        with suppress(BrokenPipeError):  # it has ended already
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._stderr.close()


def _said_last(said: bytes) -> str:
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    errors = [number for number, line in enumerate(lines) if line.startswith("Error: ")]
    return " ".join(lines[errors[-1] if errors else -1 :])


def end_with_sweep() -> None:
    """Called in the process: end it when the sweep dies, and now if the sweep is already dead."""
    if parent := os.environ.pop(PARENT, None):
        end_with_parent(int(parent))
