"""Executor `ray`: run cells as tasks of a Ray cluster, the one at $RAY_ADDRESS or else a local one.

Each task reserves the GPUs its cell needs (if the cluster has GPUs) and starts `produce` in a separate process, so that a crash loses
one cell only. When a worker dies, its cell is tried again, and the runs it had committed are skipped. The driver keeps no state: if it
dies, run the same command again to continue. Every node must reach the store under the same address.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from producer.machine.interrupt import Stop, stop_on_signal
from producer.sweep.cells import FAILED_TO_START, Command, Finished
from producer.sweep.process import CellProcess
from schemas.errors import UsageError

RETRIES = 3
POLL_S = 1.0


def run_ray(
    commands: Sequence[Command], report: Callable[[Finished], None], workers: int = 0, began: Callable[[Command], None] = lambda _: None
) -> list[Finished]:
    """Run every cell on the cluster and return the outcome of each, in order.

    report  : called with each cell's outcome when it ends.
    began   : not called: only the cluster knows when a cell begins.
    workers : number of cells that run at the same time on a local cluster that is started here.
    Raises UsageError if ray is not installed, or if `workers` is given for a running cluster, whose size it cannot change.
    Raises Interrupted after Ctrl-C, SIGTERM or SIGHUP, once the running cells have finished their batch and committed.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError("--executor ray needs ray: pip install 'hedgemark[ray]'") from error
    if not ray.is_initialized():
        _connect(ray, workers)
    has_gpus = bool(ray.cluster_resources().get("GPU"))
    task = ray.remote(num_cpus=1, max_retries=RETRIES)(run_cell)
    with stop_on_signal() as stop:  # after Ray has installed its own signal handler, which this one must replace
        halt = ray.remote(num_cpus=0)(Halt).remote()
        waiting = {task.options(num_gpus=command.devices * has_gpus).remote(command, halt): command for command in commands}
        finished = dict(_finished(ray, waiting, halt, stop, report))
        stop.check()
    return [finished[command] for command in commands]


class Halt:
    """A Ray actor from which the workers learn that the sweep must stop."""

    def __init__(self) -> None:
        self._called = False

    def call(self) -> None:
        """Ask all workers to stop."""
        self._called = True

    def called(self) -> bool:
        """Return whether the workers were asked to stop."""
        return self._called


def run_cell(command: Command, halt: Any) -> Finished:
    """Run a cell on a worker, unless the sweep must stop; if it must stop later, the cell finishes its batch and commits."""
    if _called(halt):
        return Finished(command, 1, reason="not started")
    try:
        process = CellProcess({})
    except OSError as error:
        return Finished(command, FAILED_TO_START, reason=f"could not be started: {error}")
    threading.Thread(target=_watch, args=(halt, process), daemon=True).start()
    try:
        return process.run(command)
    finally:
        process.close()


def _watch(halt: Any, process: CellProcess) -> None:
    while process.is_alive:
        if _called(halt):
            process.send_signal(signal.SIGTERM)  # since SIGINT is blocked in all processes that Ray starts
            return
        time.sleep(POLL_S)


def _called(halt: Any) -> bool:
    import ray

    try:
        return bool(ray.get(halt.called.remote()))
    except ray.exceptions.RayError:
        return False  # the actor's node was lost: cells can no longer be stopped early, but go on


def _finished(
    ray: Any, waiting: dict[Any, Command], halt: Any, stop: Stop, report: Callable[[Finished], None]
) -> Iterator[tuple[Command, Finished]]:
    """Yield each cell with its outcome when it ends. After a signal, cells that have not started end immediately and are not reported."""
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=POLL_S)
        if stop.signal_number:
            halt.call.remote()
        for reference in ready:
            command = waiting.pop(reference)
            finished = _result(ray, reference, command)
            if not stop.signal_number:
                report(finished)
            yield command, finished


def _connect(ray: Any, workers: int) -> None:
    try:
        ray.init(address="auto", log_to_driver=False)
    except ConnectionError:  # no cluster is running: start one here
        ray.init(num_cpus=workers or None, log_to_driver=False, include_dashboard=False)
    else:
        if workers:
            raise UsageError(f"--workers {workers} has no effect on a Ray cluster that is running and has a size of its own")


def _result(ray: Any, reference: Any, command: Command) -> Finished:
    try:
        finished: Finished = ray.get(reference)
    except ray.exceptions.RayError as error:
        return Finished(command, 1, reason=f"{type(error).__name__}: worker lost {RETRIES + 1} times")
    return finished
