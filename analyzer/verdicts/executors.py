"""Where `compare` runs: in this process, in several, or on a Ray cluster. Models are compared apart, so each is one piece of work.

Holm's correction runs over the whole table, so it is applied to all records together, whatever made them.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from analyzer.compare import add_holm, compare
from analyzer.loading import Runs
from analyzer.question import Question
from analyzer.records import Record
from schemas.errors import RunNotFoundError, UsageError

Work = Callable[[Runs], list[Record]]
Executor = Callable[[Work, Sequence[Runs]], Iterator[list[Record]]]


def compare_models(runs: Runs, question: Question, executor: str = "plain") -> list[Record]:
    """Return what `compare` returns, in the same order, each model with its own dense runs.

    Raises RunNotFoundError where no model has a pair, UsageError where the executor is not installed.
    """
    pieces: dict[str, list[Record]] = defaultdict(list)
    for row in runs.rows:
        pieces[row["model"]].append(dict(row))
    work = [replace(runs, rows=rows) for rows in pieces.values()]
    records = [record for part in EXECUTORS[executor](_Compare(question), work) for record in part]
    if not any(record["compared_with"] for record in records):
        raise RunNotFoundError(f"nothing to compare: none of {len(runs.rows)} selected runs is compressed and has a dense run")
    return add_holm(records)


class _Compare:
    """The work of one piece; a class, so that it can be sent to another process."""

    def __init__(self, question: Question) -> None:
        self.question = question

    def __call__(self, runs: Runs) -> list[Record]:
        try:
            return compare(runs, self.question)
        except RunNotFoundError:
            return []  # a model without a pair has nothing to say; all of them together do


def _plain(work: Work, pieces: Sequence[Runs]) -> Iterator[list[Record]]:
    return map(work, pieces)


def _processes(work: Work, pieces: Sequence[Runs]) -> Iterator[list[Record]]:
    """One process per core, spawned: a fork after a store was opened hangs."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, pieces)


def _ray(work: Work, pieces: Sequence[Runs]) -> Iterator[list[Record]]:
    try:
        import ray
    except ImportError as error:
        raise UsageError("executor ray is not installed; pip install 'hedgemark[ray]'") from error
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    remote = ray.remote(num_cpus=1)(work.__call__)
    yield from ray.get([remote.remote(piece) for piece in pieces])


EXECUTORS: dict[str, Executor] = {"plain": _plain, "processes": _processes, "ray": _ray}
