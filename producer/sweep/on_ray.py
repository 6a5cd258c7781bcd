"""Executor `ray`: cells as tasks of a Ray cluster, the one at $RAY_ADDRESS or a local one.

Each task takes a GPU slot (where the cluster has GPUs) and starts `produce` in a process of its own, so a crash costs one cell. A
worker that dies is replaced and its cell tried again; runs it had committed are found in the store. The driver keeps no state: when
it dies, the same command goes on. Every node must reach the store under the same address.
"""

from collections.abc import Callable, Sequence
from typing import Any

from producer.sweep.cells import Command, Finished
from producer.sweep.process import run
from schemas.errors import UsageError

RETRIES = 3


def run_ray(commands: Sequence[Command], report: Callable[[Finished], None], workers: int = 0) -> list[Finished]:
    """Run every cell on the cluster and return what became of each, in order.

    workers : cells at a time on a local cluster started here; ignored where a cluster is running.
    Raises UsageError where ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError("--executor ray needs ray: pip install 'hedgemark[ray]'") from error
    if not ray.is_initialized():
        _connect(ray, workers)
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(run)
    waiting = {task.remote(command, {}): command for command in commands}
    finished: dict[Command, Finished] = {}
    while waiting:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        command = waiting.pop(ready)
        finished[command] = _result(ray, ready, command)
        report(finished[command])
    return [finished[command] for command in commands]


def _connect(ray: Any, workers: int) -> None:
    try:
        ray.init(address="auto", log_to_driver=False)
    except ConnectionError:  # no cluster is running: start one here
        ray.init(num_cpus=workers or None, log_to_driver=False, include_dashboard=False)


def _result(ray: Any, reference: Any, command: Command) -> Finished:
    try:
        finished: Finished = ray.get(reference)
    except ray.exceptions.RayError as error:
        return Finished(command, 1, reason=f"{type(error).__name__}: worker lost {RETRIES + 1} times")
    return finished
