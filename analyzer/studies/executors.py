"""Where the models are analyzed: one after the other in this process, in several processes, or on a Ray cluster.

Holm's correction and the order of the fields concern the whole table, so they are applied to the records of all models together.
"""

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from analyzer.compare.compare import add_holm, compare
from analyzer.compare.two_axis_verdict import Tolerances
from analyzer.measure.question import Question
from analyzer.measure.records import Record, same_fields
from analyzer.runs.loading import Runs, open_runs
from analyzer.runs.pairs import Partners
from analyzer.studies.collector import collector_rests
from analyzer.studies.sets import sets
from schemas.errors import RunNotFoundError, UsageError
from schemas.fields import FIELDS

Source = Callable[[], Runs]  # opens the runs of one model; open stores do not travel between processes
Work = Callable[[Source], list[Record]]
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Comparison:
    """What `compare` does with the runs of one model; it can be sent to another process."""

    question: Question
    tolerances: Tolerances
    common_items: bool = False
    average: bool = False

    @collector_rests()
    def __call__(self, source: Source) -> list[Record]:
        """Return the records of one model, none if it has no pair; it is an error only if no model has a pair."""
        runs = source()
        partners = Partners(runs.rows, common_items=self.common_items)
        try:
            return compare(runs, self.question, partners=partners, tolerances=self.tolerances, average=self.average)
        except RunNotFoundError:
            return []


@dataclass(frozen=True)
class Measurement:
    """What `sets` does with the runs of one model; it can be sent to another process."""

    question: Question
    average: bool = False

    @collector_rests()
    def __call__(self, source: Source) -> list[Record]:
        """Return the records of one model."""
        return sets(source(), self.question, average=self.average)


Executor = Callable[[Work, Sequence[Source]], Iterator[list[Record]]]


def compare_models(sources: Sequence[Source], work: Comparison, executor: str = "plain") -> list[Record]:
    """Return the records of `compare` for all models, in the order of their sources.

    Raises RunNotFoundError where no model has a pair, UsageError where the executor is not installed.
    """
    records = [record for of_model in EXECUTORS[executor](work, sources) for record in of_model]
    if not records:
        raise RunNotFoundError(f"nothing to compare: none of {len(sources)} models has a compressed run and its dense run")
    return add_holm(records)


def measure_models(sources: Sequence[Source], work: Measurement, executor: str = "plain") -> list[Record]:
    """Return the records of `sets` for all models, in the order of their sources. Raises UsageError where the executor is not installed."""
    return same_fields([record for of_model in EXECUTORS[executor](work, sources) for record in of_model])


def model_sources(runs: Runs, store_url: str) -> list[Source]:
    """Return one source per model of the selected runs; it opens the same snapshot and selects that model's runs alone."""
    by_model: dict[str, list[Mapping[str, Any]]] = {}
    for row in runs.rows:
        by_model.setdefault(row["model"], []).append(row)
    selections = [{field: sorted({str(row[field]) for row in rows}) for field in FIELDS} for rows in by_model.values()]
    return [partial(open_runs, store_url, runs.reader.snapshot, names) for names in selections]


def _plain(work: Work, sources: Sequence[Source]) -> Iterator[list[Record]]:
    return map(work, sources)


def _processes(work: Work, sources: Sequence[Source]) -> Iterator[list[Record]]:
    """One process per core, spawned: a fork after a store was opened hangs. They end at once when this one is interrupted or fails."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import active_children, get_context

    with _one_thread_each(), ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), _end_silently_on_interrupt) as pool:
        others = active_children()  # of a program that calls this
        try:
            with _interrupts_held():
                results = pool.map(work, sources)
            yield from results
        except BaseException:
            for process in active_children():
                if process not in others:
                    process.terminate()
            raise


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait; processes started in this context are deaf to it while they import, where each would print a traceback."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_silently_on_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let processes started in this context use one thread for matrix products, since the other cores have their own processes."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _ray(work: Work, sources: Sequence[Source]) -> Iterator[list[Record]]:
    try:
        import ray
    except ImportError as error:
        raise UsageError("executor ray is not installed; pip install 'hedgemark[ray]'") from error
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    remote = ray.remote(num_cpus=1)(_apply)
    yield from ray.get([remote.remote(work, source) for source in sources])


def _apply(work: Work, source: Source) -> list[Record]:
    return work(source)  # Ray takes functions, not callable objects


EXECUTORS: dict[str, Executor] = {"plain": _plain, "processes": _processes, "ray": _ray}
