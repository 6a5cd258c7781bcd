"""The page of many runs, for the bench: 2,000 items, six options, two scorers, from a store to a file, in a process of its own."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from analyzer.bench.timing import Seconds, busy_seconds
from schemas.items import Item
from schemas.itemset import ItemSet, build_item_set
from schemas.run import DENSE, Run, RunKey

N_ITEMS, N_OPTIONS = 2_000, 6
TASKS = ("mmlu", "hellaswag", "cosmosqa")
METHODS = ((DENSE, "-"), *((method, level) for method in ("magnitude", "sparsegpt", "wanda") for level in ("0.3", "0.5", "0.7")))
COUNTS = (150, 500)


def reports() -> None:
    """Print time and size of `analyze report` for 150 and for 500 runs."""
    from store import init_store, open_writer

    with tempfile.TemporaryDirectory() as scratch:
        for count in COUNTS:
            store, page = f"{scratch}/store-{count}", Path(scratch, f"{count}.html")
            init_store(store)
            with open_writer(store) as writer:
                for items, run in some_runs(count):
                    writer.write(items, run)
            seconds = _command("report", "--store", store, "--out", str(page))
            print(f"report of {count} runs {seconds}, page of {page.stat().st_size / 1e6:.1f} MB")


def some_runs(count: int) -> Iterator[tuple[ItemSet, Run]]:
    """Yield simulated runs with their items: dense models, and copies with noise that grows with the level."""
    item_sets = [_items(task, number) for number, task in enumerate(TASKS)]
    for number in range(count):
        model, combination = divmod(number, len(TASKS) * len(METHODS))
        task, level = divmod(combination, len(METHODS))
        items, (method, text) = item_sets[task], METHODS[level]
        logits = np.random.default_rng([model, task]).standard_normal((N_ITEMS, N_OPTIONS), dtype=np.float32)
        logits[np.arange(N_ITEMS), items.answer] += 1.5
        if method != DENSE:
            noise = 0.1 * (1 + level % 3)
            logits += noise * np.random.default_rng([model, task, level]).standard_normal(logits.shape, dtype=np.float32)
        logits = logits.astype(np.float16).astype(np.float32)  # they tie as 16-bit ones do
        key = RunKey(model=f"m{model}", method=method, level=text, task=items.task, items_hash=items.digest, prompt="base")
        yield items, Run(key, logits, logits.max(axis=1) + np.float32(2.0), np.zeros(N_ITEMS, np.int32))


def _items(task: str, seed: int) -> ItemSet:
    answers = np.random.default_rng(seed).integers(0, N_OPTIONS, N_ITEMS)
    items = [Item(id=str(n), answer="ABCDEF"[answer], source=task, subject=f"subject {n % 20}") for n, answer in enumerate(answers)]
    return build_item_set(task, items, n_options=[N_OPTIONS] * N_ITEMS)


def _command(*arguments: str) -> Seconds:
    """Return what an `analyze` command took, its start included."""
    before, start = busy_seconds(), time.perf_counter()
    program = "from analyzer.cli.main import main; main()"
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, stdout=subprocess.DEVNULL, env=os.environ | {"COLUMNS": "160"})
    return Seconds(time.perf_counter() - start, busy_seconds() - before)
