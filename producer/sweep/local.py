"""Executor `local`: run cells on the devices that this process sees, one cell at a time on each device or group of devices."""

import os
import queue
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from producer.machine.interrupt import Stop, stop_on_signal
from producer.sweep.cells import FAILED_TO_START, Command, Finished
from producer.sweep.process import start, wait
from schemas.errors import UsageError

Report = Callable[[Finished], None]
POLL_S = 0.2
VISIBLE = "CUDA_VISIBLE_DEVICES"


def run_local(commands: Sequence[Command], report: Report, workers: int = 0) -> list[Finished]:
    """Run every cell and return the outcome of each, in order.

    report  : called with each cell's outcome when it ends.
    workers : number of cells that run at the same time; 0 means one per GPU, or one if there is no GPU.
    Raises UsageError if a cell needs more devices than there are.
    Raises Interrupted after Ctrl-C, SIGTERM or SIGHUP, once the running cells have finished their batch and committed.
    """
    slots: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
    devices = _devices_of_slots(workers, max(command.devices for command in commands))
    for each in devices:
        slots.put(each)
    with stop_on_signal() as stop, _Running(stop) as running, ThreadPoolExecutor(len(devices)) as pool:
        finished = list(pool.map(lambda command: running.run(command, slots, report), commands))
        stop.check()
    return finished


class _Running:
    """The running cells' processes, with a thread that forwards a signal to them."""

    def __init__(self, stop: Stop) -> None:
        self._stop, self._processes, self._over = stop, set[subprocess.Popen[str]](), threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> "_Running":
        self._watch = threading.Thread(target=self._forward_signal, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()

    def run(self, command: Command, slots: "queue.SimpleQueue[dict[str, str]]", report: Report) -> Finished:
        """Run one cell on the next free device or group of devices."""
        device = slots.get()
        try:
            with self._lock:
                if self._stop.signal_number:
                    return Finished(command, 128 + self._stop.signal_number, reason="not started")
                process = start(command, device)
                self._processes.add(process)
            finished = wait(command, process)
            self._processes.discard(process)
        except OSError as error:
            finished = Finished(command, FAILED_TO_START, reason=f"could not be started: {error}")
        finally:
            slots.put(device)
        report(finished)
        return finished

    def _forward_signal(self) -> None:
        while not self._over.wait(POLL_S):
            if self._stop.signal_number:
                with self._lock:
                    for process in tuple(self._processes):
                        process.send_signal(self._stop.signal_number)
                return


def _devices_of_slots(workers: int, each: int) -> list[dict[str, str]]:
    """Return one slot per cell that can run at the same time: the environment variable that shows it only its own devices.

    each : number of devices that a cell needs.
    """
    import torch

    count = torch.cuda.device_count()
    if not count:
        return [{} for _ in range(workers or 1)]
    visible = os.environ.get(VISIBLE) or ",".join(map(str, range(count)))
    devices = [name.strip() for name in visible.split(",")][:count]  # numbers or UUIDs; torch stops counting at the first invalid one
    shares = [",".join(devices[start : start + each]) for start in range(0, count - each + 1, each)]
    if not shares:
        raise UsageError(f"--tensor-parallel {each} needs {each} devices for each cell, but there are only {count}; use a smaller number")
    return [{VISIBLE: shares[number % len(shares)]} for number in range(workers or len(shares))]
