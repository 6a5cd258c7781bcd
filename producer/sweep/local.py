"""Executor `local`: run cells on the devices that this process sees, one cell at a time on each device or group of devices.

A device's cells run in one process as long as they are of one model, and those of a model go to one device while others have another model.
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from producer.machine.interrupt import Stop, stop_on_signal
from producer.sweep.cells import FAILED_TO_START, Command, Finished
from producer.sweep.process import CellProcess
from schemas.errors import UsageError

Report = Callable[[Finished], None]
POLL_S = 0.2
VISIBLE = "CUDA_VISIBLE_DEVICES"


def run_local(
    commands: Sequence[Command], report: Report, workers: int = 0, began: Callable[[Command], None] = lambda _: None
) -> list[Finished]:
    """Run every cell and return the outcome of each, in order.

    report  : called with each cell's outcome when it ends.
    began   : called with each cell when it begins.
    workers : number of cells that run at the same time; 0 means one per GPU, or one if there is no GPU.
    Raises UsageError if a cell needs more devices than there are.
    Raises Interrupted after Ctrl-C, SIGTERM or SIGHUP, once the running cells have finished their batch and committed.
    """
    slots = _devices_of_slots(workers, max(command.devices for command in commands))
    with stop_on_signal() as stop, _Sweep(commands, len(slots), report, began, stop) as sweep, ThreadPoolExecutor(len(slots)) as pool:
        list(pool.map(sweep.work_on, slots))
        stop.check()
    return [sweep.finished[number] for number in range(len(commands))]


class _Sweep:
    """The cells that wait, and the processes that run the others, with a thread that forwards a signal to them."""

    def __init__(self, commands: Sequence[Command], n_slots: int, report: Report, began: Callable[[Command], None], stop: Stop) -> None:
        self.finished = dict[int, Finished]()
        self._waiting, self._n_slots, self._stop = dict(enumerate(commands)), n_slots, stop
        self._report, self._began = report, began
        self._processes, self._models = set[CellProcess](), list[str]()
        self._lock, self._over, self._forwarded = threading.Lock(), threading.Event(), False

    def __enter__(self) -> "_Sweep":
        self._watch = threading.Thread(target=self._forward_signal, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()

    def work_on(self, device: dict[str, str]) -> None:
        """Run cells on a device until none waits; after a signal, none is started any more."""
        process, model = None, ""
        try:
            while taken := self._next(model):
                number, command = taken
                if process and (command.model != model or process.ended):
                    self._end(process)
                    process = None
                model = command.model
                self._began(command)
                try:
                    process = process or self._start(device)
                    finished = process.run(command)
                except OSError as error:
                    finished = Finished(command, FAILED_TO_START, reason=f"could not be started: {error}")
                self.finished[number] = finished
                self._report(finished)
        finally:
            if process:
                self._end(process)

    def _next(self, model: str) -> tuple[int, Command] | None:
        """Return a waiting cell with its number: of the same model, else of one that no other device has, else the first."""
        with self._lock:
            if self._stop.signal_number or not self._waiting:
                return None
            if model:
                self._models.remove(model)
            mine = [number for number, command in self._waiting.items() if command.model == model]
            free = [number for number, command in self._waiting.items() if command.model not in self._models]
            number = next(iter(mine or free or self._waiting))
            command = self._waiting.pop(number)
            self._models.append(command.model)
            return number, command

    def _start(self, device: dict[str, str]) -> CellProcess:
        process = CellProcess(device, self._n_slots)
        with self._lock:
            self._processes.add(process)
            if self._forwarded:
                process.send_signal(self._stop.signal_number)
        return process

    def _end(self, process: CellProcess) -> None:
        with self._lock:
            self._processes.discard(process)
        process.close()

    def _forward_signal(self) -> None:
        while not self._over.wait(POLL_S):
            if self._stop.signal_number:
                with self._lock:
                    self._forwarded = True
                    for process in self._processes:
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
