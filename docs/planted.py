"""Plant a fault into a stored dense run: the model answers as before, but its confidence no longer tells right answers from wrong ones.

    python docs/planted.py demo-store ref-l facts

The differences between an item's logits are multiplied by a factor of its own between 1/8 and 8, drawn at random. No answer changes, so
accuracy stays the same to the last digit and no answer flips; a prediction set must then hold more options to cover as often. The result
is stored beside the dense run as method `planted`, level `blur-x8`.
"""

import sys
from dataclasses import replace

import numpy as np
import polars as pl

from schemas.errors import HedgemarkError, RunNotFoundError, UsageError
from schemas.run import DENSE
from store import open_reader
from store.exchange.import_runs import Words, import_runs

FACTOR = 8
NOTE = "planted: the differences between an item's logits are multiplied by a random factor between 1/8 and 8"


def plant(url: str, model: str, task: str) -> list[str]:
    """Store the planted run of a model's dense run on a task, and return its name."""
    reader = open_reader(url)
    dense = reader.catalog.filter(pl.col("method") == DENSE)
    names = dense.filter((pl.col("model") == model) & (pl.col("task") == task))["name"].to_list()
    if len(names) != 1:
        known = ", ".join(sorted({f"{row['model']} on {row['task']}" for row in dense.iter_rows(named=True)})) or "none"
        count = f"{len(names)} dense runs" if names else "no dense run"
        raise RunNotFoundError(f"{url} has {count} of model {model!r} on task {task!r}, where one is needed; dense runs it has: {known}")
    name = names[0]
    run = reader.run(name)
    factors = FACTOR ** np.random.default_rng(0).uniform(-1, 1, (run.logits.shape[0], 1))
    below_top = run.logits - np.nanmax(run.logits, axis=1, keepdims=True)
    planted = replace(
        run,
        key=run.key.model_copy(update={"method": "planted", "level": f"blur-x{FACTOR}"}),
        logits=(below_top * factors).astype(np.float32),
        logsumexp=np.full(run.logits.shape[0], np.nan, np.float32),  # of the whole vocabulary, which this changes in no known way
        env=run.env.model_copy(update={"notes": (NOTE,)}),
    )
    return import_runs(url, [(reader.items(run.key.items_hash), planted)], Words(f"plant a fault into {name}")).names


if __name__ == "__main__":
    if len(sys.argv) != 4:
        print("Usage: python docs/planted.py STORE MODEL TASK, such as demo-store ref-l facts", file=sys.stderr)
        sys.exit(UsageError.exit_code)
    try:
        print("\n".join(plant(*sys.argv[1:])))
    except HedgemarkError as error:
        print(f"Error: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
