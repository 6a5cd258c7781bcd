"""Scale-out: 150 models x 12 methods x 5 tasks x 3 prompts, simulated logits of 2,000 items, through `compare` with intervals.

    python -m analyzer.bench.compare_bench [--models N] [--executor plain|processes|ray]

Runs are simulated when they are read, one model after the other; target: 5 minutes on two cores, below 2 GB.
"""

import resource
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from itertools import product
from typing import Any

import click
import numpy as np
import polars as pl

from analyzer.bench.timing import busy_seconds
from analyzer.compare.two_axis_verdict import Tolerances
from analyzer.measure.question import Question
from analyzer.runs.loading import Runs, select_runs
from analyzer.studies.executors import EXECUTORS, Comparison, compare_models
from schemas.fields import KEY_COLUMNS
from schemas.items import Item
from schemas.itemset import ItemSet, build_item_set
from schemas.run import DENSE, Run, RunKey

N_ITEMS, N_OPTIONS = 2_000, 6
ALL = 54_000  # comparisons of 150 models under two scorers
METHODS = (DENSE, *(f"method{number}" for number in range(12)))
TASKS, PROMPTS = tuple(f"task{number}" for number in range(5)), ("base", "shared", "task")


class SimulatedReader:
    """A store of one model whose runs are simulated when they are read, the same ones each time."""

    snapshot = "SIMULATED"

    def __init__(self, model: int) -> None:
        item_sets = [_item_set(task) for task in TASKS]
        self._items = {item_set.digest: item_set for item_set in item_sets}
        keys = [
            RunKey(model=f"m{model}", method=method, task=items.task, items_hash=items.digest, prompt=prompt)
            for items, prompt, method in product(item_sets, PROMPTS, METHODS)
        ]
        self._keys = {key.name: key for key in keys}
        self.catalog = pl.DataFrame([self._row(name, key) for name, key in self._keys.items()])

    def run(self, name: str) -> Run:
        """Return a run: the model's own logits, and noise that grows with the method's number."""
        key = self._keys[name]
        answers = self._items[key.items_hash].answer
        rng = np.random.default_rng([int(key.model[1:]), TASKS.index(key.task), PROMPTS.index(key.prompt)])
        logits = rng.standard_normal((N_ITEMS, N_OPTIONS), dtype=np.float32)
        logits[np.arange(N_ITEMS), answers] += 1.5
        logits += 0.05 * METHODS.index(key.method) * rng.standard_normal(logits.shape, dtype=np.float32)
        return Run(key, logits, np.full(N_ITEMS, 5.0, np.float32), np.zeros(N_ITEMS, np.int32))

    def runs(self, names: Iterable[str]) -> Iterator[Run]:
        """Yield runs by name."""
        return map(self.run, names)

    def items(self, items_hash: str) -> ItemSet:
        """Return an item set."""
        return self._items[items_hash]

    def _row(self, name: str, key: RunKey) -> Mapping[str, Any]:
        return {"name": name} | {field: getattr(key, field) for field in KEY_COLUMNS} | {"parameters": 0}


@click.command()
@click.option("--models", default=150, show_default=True)
@click.option("--executor", type=click.Choice(list(EXECUTORS)), default="plain", show_default=True)
def main(models: int, executor: str) -> None:
    """Time `compare` over a simulated store and print what it took."""
    comparisons(models, executor)


def comparisons(models: int = 4, executor: str = "plain") -> None:
    """Print what `compare` takes over this many simulated models."""
    sources = [partial(_model, number) for number in range(models)]
    before, started = busy_seconds(), time.perf_counter()
    records = compare_models(sources, Comparison(Question(), Tolerances()), executor)
    seconds, spent = time.perf_counter() - started, busy_seconds() - before
    memory = [resource.getrusage(who).ru_maxrss / 2**20 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    pairs = sum(record["compared_with"] is not None for record in records)
    n_runs = models * len(METHODS) * len(TASKS) * len(PROMPTS)
    click.echo(f"{n_runs:,} runs, {pairs:,} comparisons in {seconds:.1f} s ({spent:.1f} s of CPU, {1e3 * spent / pairs:.2f} ms each)")
    click.echo(f"{ALL:,} comparisons, the costs of all models being alike: {spent / pairs * ALL:.0f} s of CPU   (limit 40)")
    click.echo(f"peak memory {memory[0]:.2f} GB here, {memory[1]:.2f} GB in the largest child")


def _model(number: int) -> Runs:
    return select_runs(SimulatedReader(number), {})


@cache
def _item_set(task: str) -> ItemSet:
    answers = np.random.default_rng(TASKS.index(task)).integers(0, N_OPTIONS, N_ITEMS)
    items = [Item(id=str(number), answer="ABCDEF"[answer], source=task) for number, answer in enumerate(answers)]
    return build_item_set(task, items, n_options=[N_OPTIONS] * len(items))


if __name__ == "__main__":
    main()
