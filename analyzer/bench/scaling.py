"""How the cost of the exact law grows with items, options, alphas, scorers and runs, for the bench."""

import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from analyzer.bench.timing import ALPHAS, N_ITEMS, REPEATS, Seconds, W, best, busy_seconds, exact_law, simulated
from analyzer.measure.question import Question
from analyzer.runs.loading import open_runs
from analyzer.scorers import SCORERS
from analyzer.studies.executors import Measurement, measure_models, model_sources

SIZES = (1_000, 10_000, 100_000, 1_000_000)
OPTIONS, COUNTS = (2, 4, 8, 16, 26), (9, 33, 99)
MANY = 10**5  # from so many items on, one call is enough to time


def scaling() -> None:
    """Print the time of the exact law per item, option, alpha and scorer; constant columns mean n log n in items and linear in the rest."""
    print("exact law of W by items:")
    for n_items in SIZES:
        view = simulated(n_items)
        seconds = best(lambda view=view: exact_law(view), 1 if n_items > MANY else REPEATS)  # type: ignore[misc]
        print(f"  {n_items:>9,} items   {seconds}   {1e9 * seconds.busy / (n_items * np.log2(n_items)):6.1f} ns per item and log2(items)")
    for n_options in OPTIONS:
        view = simulated(N_ITEMS, n_options)
        seconds = best(lambda view=view: exact_law(view))  # type: ignore[misc]
        print(f"  {n_options:>9,} options {seconds}   {1e3 * seconds.busy / n_options:6.2f} ms per option")
    view = simulated(N_ITEMS)
    for count in COUNTS:
        alphas = ALPHAS[:: len(ALPHAS) // count]
        seconds = best(lambda alphas=alphas: exact_law(view, alphas=alphas))  # type: ignore[misc]
        print(f"  {count:>9,} alphas  {seconds}   {1e3 * seconds.busy / count:6.2f} ms per alpha, sorting included")
    for count in (1, 2, 4, len(SCORERS)):
        scorers = list(SCORERS)[:count]
        seconds = best(lambda scorers=scorers: exact_law(view, scorers))  # type: ignore[misc]
        print(f"  {count:>9,} scorers {seconds}   {1e3 * seconds.busy / count:6.2f} ms per scorer")


def published(folder: Path) -> None:
    """Print what the 54 published runs x 99 alphas take, records with intervals, from a store: 2 scorers here, 7 in a process per core."""
    from store.exchange.import_runs import Words, import_runs
    from store.importers.ye2024 import read_ye2024

    with tempfile.TemporaryDirectory() as scratch:
        url = f"{scratch}/store"
        import_runs(url, read_ye2024(folder / "data", folder / "outputs_base"), Words("bench"))
        runs = open_runs(url, None, {})
        for scorers, executor, limit in ((tuple(SCORERS), "processes", "limit 30 s on two cores"), (W, "plain", "limit 3 s on one")):
            before, start = busy_seconds(), time.perf_counter()
            question = replace(Question(), alphas=ALPHAS, scorers=scorers)
            records = measure_models(model_sources(runs, url), Measurement(question), executor)
            seconds = Seconds(time.perf_counter() - start, busy_seconds() - before)
            print(f"{len(runs.rows)} published runs, {len(scorers)} scorers, {len(records):,} records with intervals {seconds}   ({limit})")
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"  largest process {largest:.2f} GB, one per core (limit 1 GB for all)")
