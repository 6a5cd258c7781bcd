"""`python -m analyzer.bench`: how fast the engine is, against itself, against other libraries, and against the machine.

Workload W: one run of 10,000 items, 6 options, 99 alphas, scorers lac and aps; a cell is one alpha, scorer and split with its coverage
and set size. Every ratio comes from this one process. Times are wall clock, with the processor's own time beside them: on a machine
that is busy with something else they differ, and the second is what the work takes. Simulated logits by default; `--ye2024 DIR` (the
folder with data/ and outputs_base/) also measures the 54 published runs through a store. Peers are timed where they are installed
(tests/peers-requirements.txt).
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from analyzer.api import view_of
from analyzer.bench_peers import peer_seconds_per_cell
from analyzer.conformal import measure, scores_of
from analyzer.drawn import drawn_values
from analyzer.law import moments, rank_law, statistics
from analyzer.question import Question
from analyzer.ranks import Ranks, rank_scores, threshold_rank
from analyzer.scorers import SCORERS
from analyzer.splits import draw_splits
from analyzer.view import RunView

N_ITEMS, N_OPTIONS, N_SPLITS = 10_000, 6, 1_000
ALPHAS = tuple(Fraction(i, 100) for i in range(1, 100))
W = ("lac", "aps")
REPEATS = 3
SIZES = (1_000, 10_000, 100_000, 1_000_000)
LIMITS = {"exact": 0.10, "numpy": 0.5, "numba": 0.15}


def main() -> None:
    """Print every figure of the bench."""
    parser = argparse.ArgumentParser(prog="python -m analyzer.bench", description="Time the conformal engine.")
    parser.add_argument("--ye2024", type=Path, metavar="DIR", help="folder with the published data/ and outputs_base/")
    folder = parser.parse_args().ye2024
    view = simulated(N_ITEMS)
    print(f"W: {N_ITEMS:,} items, {N_OPTIONS} options, {len(ALPHAS)} alphas, {len(W)} scorers; best of {REPEATS}; {os.cpu_count()} CPUs")
    exact = best(lambda: exact_law(view))
    print(f"exact law, all splits of W          {exact}   (limit {LIMITS['exact']:.2f} s)")
    per_cell = {name: drawn(view, name == "numba") for name in kernels()}
    for name, seconds in peer_seconds_per_cell(view.probs, view.answer).items():
        ratios = ", ".join(f"{seconds / ours:,.0f} times with {kernel}" for kernel, ours in per_cell.items())
        print(f"{name:12s} {1e3 * seconds:6.2f} ms per cell: ours is faster {ratios}")
    bandwidth(view)
    scaling()
    if folder:
        published(folder)


def simulated(n_items: int, seed: int = 0) -> RunView:
    """Return a model that is right about two times in three; logits rounded to 1/8, so that scores tie as 16-bit ones do."""
    rng = np.random.default_rng(seed)
    answers = rng.integers(0, N_OPTIONS, n_items)
    logits = rng.normal(size=(n_items, N_OPTIONS))
    logits[np.arange(n_items), answers] += rng.gamma(2.0, 0.8, n_items)
    return view_of(xr.Dataset({"logits": (("item", "option"), np.round(8 * logits) / 8), "answer": ("item", answers)}))


class Seconds(NamedTuple):
    """Wall clock and processor time."""

    wall: float
    busy: float

    def __str__(self) -> str:
        return f"{self.wall:8.3f} s ({self.busy:.3f} s busy)"


def best(work: Callable[[], object], repeats: int = REPEATS) -> Seconds:
    """Return the least times of some calls."""
    times = []
    for _ in range(repeats):
        wall, busy = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - wall, time.process_time() - busy))
    return Seconds(*(min(column) for column in zip(*times, strict=True)))


def exact_law(view: RunView, scorers: Iterable[str] = W) -> None:
    """Mean and sd over all splits of coverage, set size, empty and singleton rate at every alpha, from probs."""
    n = view.n_items // 2
    for scorer in scorers:
        known = statistics(ranked(view, scorer))
        for alpha in ALPHAS:
            moments(rank_law(view.n_items, n, threshold_rank(n, alpha)), known)


def ranked(view: RunView, scorer: str) -> Ranks:
    """Return the ranks of a run under one scorer."""
    return rank_scores(scores_of(view, view.probs, scorer, Question()), view.answer, view.probs)


def kernels() -> list[str]:
    """Return the kernels for drawn splits that are installed."""
    try:
        import numba  # noqa: F401
    except ImportError:
        return ["numpy"]
    return ["numpy", "numba"]


def drawn(view: RunView, numba: bool) -> float:
    """Print the time of 1,000 drawn splits of W, splits and sorting included, and return busy seconds per cell."""
    ks = [threshold_rank(N_ITEMS // 2, alpha) for alpha in ALPHAS]

    def work(sizes: bool) -> None:
        masks = draw_splits(N_ITEMS, N_ITEMS // 2, range(N_SPLITS))
        for scorer in W:
            ranks = ranked(view, scorer)
            drawn_values(statistics(ranks, sizes=sizes), ranks.own, masks, ks, numba=numba)

    name = "numba" if numba else "numpy"
    work(sizes=False)  # compiles
    seconds, histogram = best(lambda: work(False)), best(lambda: work(True))
    cells = N_SPLITS * len(ALPHAS) * len(W)
    each = 1e6 * seconds.busy / cells
    print(f"{N_SPLITS:,} drawn splits of W, {name}      {seconds}   (limit {LIMITS[name]:.2f} s), {each:.2f} us a cell")
    print(f"  with the histogram of set sizes   {histogram}   ({histogram.busy / seconds.busy:.2f} times; limit 3)")
    return seconds.busy / cells


def bandwidth(view: RunView) -> None:
    """Print the bytes that one split of one scorer must touch against what the memory delivers."""
    block = np.zeros(2**27, dtype=np.uint8)
    rate = 2 * block.nbytes / best(block.copy).busy
    ranks = ranked(view, "aps")
    known = statistics(ranks)
    masks = draw_splits(N_ITEMS, N_ITEMS // 2, range(200))
    ks = [threshold_rank(N_ITEMS // 2, alpha) for alpha in ALPHAS]
    seconds = best(lambda: drawn_values(known, ranks.own, masks, ks, numba=False)).busy / len(masks)
    touched = known.table.rows.size * (4 + 1 + 1) + N_ITEMS * (8 + 2)  # gather: index, flag in, flag out; the mask in rank order
    said = f"{touched / 1e3:.0f} kB in {1e6 * seconds:.0f} us, {touched / seconds / 1e9:.1f} GB/s"
    print(f"a drawn split touches {said}; memory copies {rate / 1e9:.1f} GB/s")


def scaling() -> None:
    """Print the time of the exact law per item and log2(items): flat where cost grows as n log n."""
    print("exact law of W by items:")
    for n_items in SIZES:
        view = simulated(n_items)
        seconds = best(lambda view=view: exact_law(view), 1 if n_items > 10**5 else REPEATS)  # type: ignore[misc]
        print(f"  {n_items:>9,} items {seconds}   {1e9 * seconds.busy / (n_items * np.log2(n_items)):6.1f} ns per item and log2(items)")
    view = simulated(N_ITEMS)
    for count in (1, 2, 4, 7):
        scorers = list(SCORERS)[:count]
        seconds = best(lambda scorers=scorers: exact_law(view, scorers))  # type: ignore[misc]
        print(f"  {count} scorers       {seconds}   {1e3 * seconds.busy / count:.1f} ms per scorer")


def published(folder: Path) -> None:
    """Print time and peak memory of the 54 published runs x 99 alphas x 7 scorers, with intervals, from a store."""
    from analyzer.loading import open_runs
    from store.importers.ye2024 import read_ye2024
    from store.importing import import_runs

    with tempfile.TemporaryDirectory() as place:
        import_runs(f"{place}/store", read_ye2024(folder / "data", folder / "outputs_base"), "bench")
        start, busy, cells = time.perf_counter(), time.process_time(), 0
        question = replace(Question(), alphas=ALPHAS)
        for view in open_runs(f"{place}/store", None, {}).views():
            cells += sum(1 for scorer in SCORERS for _ in measure(view, scorer, question))
        seconds = Seconds(time.perf_counter() - start, time.process_time() - busy)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"54 published runs, {cells:,} cells with intervals {seconds}   (limit 30 s); peak memory {peak:.2f} GB (limit 1)")


if __name__ == "__main__":
    main()
