"""Where `compare` runs: in this process, in several, or on a Ray cluster. Models are compared apart, so each is one piece of work.

Holm's correction runs over the whole table, so it is applied to all records together, whatever made them.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from analyzer.compare import add_holm, compare
from analyzer.loading import Runs, open_runs
from analyzer.pairs import Partners
from analyzer.question import Question
from analyzer.records import Record
from analyzer.verdicts.axes import Tolerances
from schemas.errors import RunNotFoundError, UsageError

Source = Callable[[], Runs]  # opens the runs of one model; open stores do not travel between processes


@dataclass(frozen=True)
class Comparison:
    """What to do with the runs of one model; it is sent to whatever does it."""

    question: Question
    tolerances: Tolerances
    common_items: bool = False
    average: bool = False

    def __call__(self, source: Source) -> list[Record]:
        """Return the records of one model, none where nothing in it can be compared: only all models together can lack pairs."""
        runs = source()
        partners = Partners(runs.rows, common_items=self.common_items)
        try:
            return compare(runs, self.question, partners=partners, tolerances=self.tolerances, average=self.average)
        except RunNotFoundError:
            return []


Executor = Callable[[Comparison, Sequence[Source]], Iterator[list[Record]]]


def compare_models(sources: Sequence[Source], work: Comparison, executor: str = "plain") -> list[Record]:
    """Return what `compare` returns, models in the order of their sources.

    Raises RunNotFoundError where no model has a pair, UsageError where the executor is not installed.
    """
    records = [record for part in EXECUTORS[executor](work, sources) for record in part]
    if not records:
        raise RunNotFoundError(f"nothing to compare: none of {len(sources)} models has a compressed run and its dense run")
    return add_holm(records)


def model_sources(runs: Runs, store_url: str, wanted: Mapping[str, Sequence[str]]) -> list[Source]:
    """Return one source per model of the selected runs, all of them of the snapshot that was selected from."""
    models = dict.fromkeys(str(row["model"]) for row in runs.rows)
    at = runs.reader.snapshot
    return [partial(open_runs, store_url, at, {**wanted, "model": [model]}, with_dense=True) for model in models]


def _plain(work: Comparison, sources: Sequence[Source]) -> Iterator[list[Record]]:
    return map(work, sources)


def _processes(work: Comparison, sources: Sequence[Source]) -> Iterator[list[Record]]:
    """One process per core, spawned: a fork after a store was opened hangs."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, sources)


def _ray(work: Comparison, sources: Sequence[Source]) -> Iterator[list[Record]]:
    try:
        import ray
    except ImportError as error:
        raise UsageError("executor ray is not installed; pip install 'hedgemark[ray]'") from error
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    remote = ray.remote(num_cpus=1)(_apply)
    yield from ray.get([remote.remote(work, source) for source in sources])


def _apply(work: Comparison, source: Source) -> list[Record]:
    return work(source)  # Ray takes functions, not callable objects


EXECUTORS: dict[str, Executor] = {"plain": _plain, "processes": _processes, "ray": _ray}
