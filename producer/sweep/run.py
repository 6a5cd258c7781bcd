"""Run a sweep: check all requests, pass their cells to an executor, and report which cells failed and why."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from producer.machine.interrupt import Interrupted
from producer.machine.progress import progress_bar
from producer.request.request import Request, check_names
from producer.run.plan import check_request
from producer.sweep.cells import Command, Finished, split
from producer.sweep.local import run_local
from producer.sweep.on_ray import run_ray
from schemas.errors import HedgemarkError
from store.command import SIGNALLED

log = logging.getLogger(__name__)
EXECUTORS: dict[str, Callable[[Sequence[Command], Callable[[Finished], None], int], list[Finished]]] = {"local": run_local, "ray": run_ray}


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
            finished = EXECUTORS[executor](commands, lambda cell: _report(cell, bar), workers)
    except Interrupted as interrupted:
        message = f"{interrupted}; finished runs are in the store; run the same command again to continue"
        raise Interrupted(message, interrupted.signal_number) from None
    if failed := [cell for cell in finished if cell.exit_code]:
        reasons = "".join(f"\n  {cell.command.name}: {cell.reason}" for cell in failed)
        raise SweepError(f"{len(failed)} of {len(finished)} cells failed, the runs of the others are in the store:{reasons}")
    return [name for cell in finished for name in cell.runs]


def _report(cell: Finished, bar: Any) -> None:
    bar.update()
    if cell.exit_code > SIGNALLED:  # it was stopped together with the sweep, which says so itself
        log.info("%s: %s", cell.command.name, cell.reason)
    elif cell.exit_code:
        log.error("%s failed: %s", cell.command.name, cell.reason)
    else:
        log.info("%s: %d runs written", cell.command.name, len(cell.runs))
