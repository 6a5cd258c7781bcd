"""`python -m store.bench`: how fast a store of 2,000 runs of 10,000 x 6 logits is, on local disk and, with --s3, at an S3 address.

Prints one line per measurement with its limit. The logits are random, rounded to 16 bits like real ones so that they compress alike.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from schemas.items import Item
from schemas.itemset import ItemSet, build_item_set
from schemas.run import Environment, Run, RunKey
from store import init_store, open_reader, open_writer

N_ITEMS, N_OPTIONS, N_RUNS = 10_000, 6, 2_000
READS = 50


def main() -> None:
    """Print all measurements."""
    parser = argparse.ArgumentParser(prog="python -m store.bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=N_RUNS, help="number of runs to write")
    parser.add_argument("--s3", metavar="URL", help="also measure at this address, which must be an empty prefix")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HEDGEMARK_CACHE"] = str(Path(folder) / "cache")
        local = str(Path(folder) / "store")
        measure(local, arguments.runs)
        share = metadata_share(Path(local))
        report("metadata of data", 100 * share, "%", 10)
        if arguments.s3:
            measure(arguments.s3, arguments.runs)


def measure(url: str, n_runs: int) -> None:
    """Write, list and read a store, and print the times."""
    print(f"{url}: {n_runs} runs of {N_ITEMS} x {N_OPTIONS}")
    init_store(url)
    items = some_items()
    report("write a run, in batch", 1000 * write(url, items, n_runs) / n_runs, "ms", 30)
    report("store ls, cold", list_runs(url), "s", 3)
    report("store ls, warm", statistics.median(list_runs(url) for _ in range(3)), "s", 0.5)
    reader = open_reader(url)
    names = reader.catalog["name"].to_list()
    times = [timed(partial(reader.run, name)) for name in names[:: max(1, len(names) // READS)]]
    report("read a run", 1000 * statistics.median(times), "ms", 50)
    report("of which verify the digest", 1000 * timed(partial(digest_of, reader.run(names[0]))), "ms", None)
    report("read all logits", timed(lambda: sum(run.logits.shape[0] for run in reader.runs(names))), "s", 6)


def write(url: str, items: ItemSet, n_runs: int) -> float:
    """Return the seconds that it took to write runs in one batch, without the time to simulate them."""
    spent = 0.0
    with open_writer(url) as writer:
        for run in some_runs(items, n_runs):
            spent += timed(partial(writer.write, items, run))
        spent += timed(writer.commit)
    return spent


def list_runs(url: str) -> float:
    """Return the seconds that the command takes, including its start."""
    return timed(lambda: subprocess.run([sys.executable, "-m", "store", "ls", "--store", url], check=True, stdout=subprocess.DEVNULL))


def metadata_share(folder: Path) -> float:
    """Return the bytes of all files except chunks, as a share of the bytes of chunks."""
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    data = sum(size for path, size in sizes.items() if "chunks" in path.parts)
    return (sum(sizes.values()) - data) / data


def digest_of(run: Run) -> str:
    """Return a run's digest, computed again: the part of a read that verifies it."""
    return Run(run.key, run.logits, run.logsumexp, run.top_token).digest


def some_items() -> ItemSet:
    """Return items without text."""
    items = [Item(id=str(number), answer="ABCDEF"[number % N_OPTIONS], source="bench") for number in range(N_ITEMS)]
    return build_item_set("bench", items, n_options=[N_OPTIONS] * len(items))


def some_runs(items: ItemSet, n_runs: int) -> Iterator[Run]:
    """Yield runs of random logits in half precision, as models give them."""
    rng = np.random.default_rng(0)
    libraries = {f"library-{number}": "1.2.3" for number in range(8)}
    env = Environment(libraries=libraries, command="produce --model m", created="2026-01-01T00:00:00+00:00")
    for number in range(n_runs):
        logits = rng.normal(18, 2, (N_ITEMS, N_OPTIONS)).astype(np.float16).astype(np.float32)
        logsumexp = logits.max(axis=1) + rng.random(N_ITEMS, dtype=np.float32)
        names = {"model": f"model-{number % 40}", "method": "wanda", "level": f"0.{number % 97:02}", "task": "bench", "prompt": "base"}
        key = RunKey(**names, items_hash=items.digest, seed=number)
        yield Run(key, logits, logsumexp.astype(np.float32), rng.integers(0, 32_000, N_ITEMS, dtype=np.int32), env=env)


def timed(function: Callable[[], object]) -> float:
    """Return the seconds a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def report(name: str, value: float, unit: str, limit: float | None) -> None:
    """Print one figure and its limit."""
    print(f"  {name:<26} {value:8.2f} {unit}" + (f"   (limit {limit:g} {unit})" if limit is not None else ""), flush=True)


if __name__ == "__main__":
    main()
