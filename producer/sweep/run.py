"""Run a sweep: check all requests, pass their cells to an executor, and report which cells failed and why."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import click

from producer.machine.interrupt import Interrupted
from producer.machine.progress import progress_bar
from producer.request.request import Request, check_names
from producer.run.plan import check_request
from producer.sweep.cells import Command, Finished, split
from producer.sweep.local import run_local
from producer.sweep.on_ray import run_ray
from schemas.errors import HedgemarkError
from store.command import SIGNALLED
from store.shown import counted, message, printable

log = logging.getLogger(__name__)
Executor = Callable[[Sequence[Command], Callable[[Finished], None], int, Callable[[Command], None]], list[Finished]]
EXECUTORS: dict[str, Executor] = {"local": run_local, "ray": run_ray}


class SweepError(HedgemarkError):
    """Some cells of a sweep failed; the runs of the others are in the store."""


def run_sweep(requests: Sequence[Request], store_url: str, executor: str, workers: int = 0) -> list[str]:
    """Run all cells and return the names of the runs they wrote.

    Raises UsageError before anything starts, and SweepError, with the reason of every failed cell, when all cells have ended.
    """
    check_names("executor", [executor], [*EXECUTORS])
    for request in requests:
        check_request(request)
    commands = split(requests, store_url)
    try:
        with progress_bar(len(commands), "sweep", "cell") as bar:
            progress = Progress(bar)
            finished = EXECUTORS[executor](commands, progress.ended, workers, progress.began)
    except Interrupted as interrupted:
        message = f"{interrupted}; finished runs are in the store; run the same command again to continue"
        raise Interrupted(message, interrupted.signal_number) from None
    if failed := [cell for cell in finished if cell.exit_code]:
        reasons = "".join(f"\n  {cell.command.name}: {cell.reason}" for cell in failed)
        raise SweepError(f"{len(failed)} of {len(finished)} cells failed, the runs of the others are in the store:{reasons}")
    return [name for cell in finished for name in cell.runs]


class Progress:
    """Shows the cells that run beside the bar; where stderr is no terminal and has no bar, a line for each cell that has ended."""

    def __init__(self, bar: Any) -> None:
        self._bar, self._began_at, self._n_ended = bar, dict[str, float](), 0
        self._lock = threading.Lock()  # cells begin and end in threads of their devices

    def began(self, command: Command) -> None:
        """Show a cell that has begun."""
        with self._lock:
            self._began_at[command.name] = time.monotonic()
            self._show_running()

    def ended(self, cell: Finished) -> None:
        """Show that a cell has ended, and say why it failed; one that was stopped together with the sweep is none that failed."""
        name = cell.command.name
        with self._lock:
            self._n_ended = number = self._n_ended + 1
            began_at = self._began_at.pop(name, None)
            self._bar.update()
            self._show_running()
        if cell.exit_code > SIGNALLED:
            log.info("%s: %s", name, cell.reason)
        elif cell.exit_code:
            log.error("%s failed: %s", name, cell.reason)
        elif self._bar.disable:
            took = f" in {time.monotonic() - began_at:.0f} s" if began_at is not None else ""
            done = f"{counted(len(cell.runs), 'run')} written{took}"
            click.echo(message(f"cell {number} of {self._bar.total}, {name}: {done}"), err=True)
        else:
            log.info("%s: %d runs written", name, len(cell.runs))

    def _show_running(self) -> None:
        self._bar.set_postfix_str(printable(", ".join(self._began_at)))
