"""`python -m analyzer.bench`: how fast the engine is, against itself, against other libraries, and against the machine.

published: the 54 published runs through a store; needs --ye2024 DIR, the folder with data/ and outputs_base/
law      : the exact split law and drawn splits, compared with other libraries where these are installed (`make peers`)
scaling  : how the cost grows with items, options, alphas and scorers
gate     : the gate's checks, and the tests and verdict of a comparison
predictor: a predictor's decisions
report   : the page of 150 and of 500 runs
compare  : comparisons of 4 models with 12 methods, 5 tasks and 3 prompts

Workload W: one run of 10,000 items, 6 options, 99 alphas, scorers lac and aps; a cell is one alpha, scorer and split with its coverage
and set size. Every ratio comes from this one process and one thread, over the same W. Times are wall clock, with processor time beside
them: on a busy machine only the second says how long the work takes. Logits are simulated.
"""

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from analyzer.bench.compare_bench import comparisons
from analyzer.bench.peers import peer_seconds_per_cell
from analyzer.bench.report_bench import reports
from analyzer.bench.scaling import published, scaling
from analyzer.bench.shipping import gate, predictor
from analyzer.bench.timing import ALPHAS, N_ITEMS, N_OPTIONS, REPEATS, W, best, exact_law, ranked, simulated
from analyzer.conformal.drawn_splits import drawn_values
from analyzer.conformal.hits import BLOCK, LANES
from analyzer.conformal.ranks import threshold_rank
from analyzer.conformal.split_law import set_statistics
from analyzer.conformal.splits import draw_splits
from analyzer.runs.view import RunView

N_SPLITS = 1_000
LIMITS = {"exact": 0.10, "numpy": 0.5, "numba": 0.15}
RATIOS = {"torchcp": {"numpy": 1_000, "numba": 5_000}, "MAPIE": {"numpy": 300, "numba": 1_500}}


def main() -> None:
    """Print the figures of the selected parts."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m analyzer.bench", description=__doc__, formatter_class=raw)
    parser.add_argument("--part", choices=[*PARTS], action="append", help="only this part (repeatable)")
    parser.add_argument("--ye2024", type=Path, metavar="DIR", help="folder with the published data/ and outputs_base/")
    arguments = parser.parse_args()
    for name in arguments.part or PARTS:
        PARTS[name](arguments)


def law() -> None:
    """Print the time of the exact law and of drawn splits, and of other libraries."""
    view = simulated(N_ITEMS)
    print(f"W: {N_ITEMS:,} items, {N_OPTIONS} options, {len(ALPHAS)} alphas, {len(W)} scorers; best of {REPEATS}; {os.cpu_count()} CPUs")
    print(f"exact law, all splits of W          {best(lambda: exact_law(view))}   (limit {LIMITS['exact']:.2f} s)")
    per_cell = {name: drawn(view, name == "numba") for name in kernels()}
    for name, seconds in peer_seconds_per_cell(view.probs, view.answer).items():
        ratios = [
            f"{seconds / kernel_seconds:,.0f} times with {kernel} (limit {RATIOS[name][kernel]:,})"
            for kernel, kernel_seconds in per_cell.items()
        ]
        print(f"{name:12s} {1e3 * seconds:6.2f} ms per cell of W: ours is faster {', '.join(ratios)}")
    bandwidth(view)


def published_runs(folder: Path | None) -> None:
    """Print the time of the 54 published runs, or that their folder was not named."""
    if folder:
        published(folder)
    else:
        print("published runs: not measured, --ye2024 names no folder")


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
            drawn_values(set_statistics(ranks, sizes=sizes), ranks.item_rank, masks, ks, numba=numba)

    name = "numba" if numba else "numpy"
    work(sizes=False)  # compiles
    seconds, histogram = best(lambda: work(False)), best(lambda: work(True))
    cells = N_SPLITS * len(ALPHAS) * len(W)
    each = 1e6 * seconds.busy / cells
    print(f"{N_SPLITS:,} drawn splits of W, {name}      {seconds}   (limit {LIMITS[name]:.2f} s), {each:.2f} us a cell")
    print(f"  with the histogram of set sizes   {histogram}   ({histogram.busy / seconds.busy:.2f} times; limit 3)")
    return seconds.busy / cells


def bandwidth(view: RunView) -> None:
    """Print how many bytes one drawn split of one scorer reads and writes, and how long the memory takes to deliver as many."""
    block = np.zeros(2**27, dtype=np.uint8)
    rate = 2 * block.nbytes / best(block.copy).busy
    ranks = ranked(view, "aps")
    statistics = set_statistics(ranks)
    masks = draw_splits(N_ITEMS, N_ITEMS // 2, range(200))
    ks = [threshold_rank(N_ITEMS // 2, alpha) for alpha in ALPHAS]
    hits = statistics.table.rows.size
    touched = (hits * (4 + 8 + 8) + N_ITEMS * 8) / LANES + N_ITEMS  # a hit: index, word in, count out, for 8 splits; and the mask
    print(f"a drawn split touches {touched / 1e3:.0f} kB ({hits:,} hits, {LANES} splits a pass, blocks of {BLOCK});", end=" ")
    print(f"memory copies {rate / 1e9:.1f} GB/s, so {1e6 * touched / rate:.0f} us from memory")
    for name in kernels():
        work = partial(drawn_values, statistics, ranks.item_rank, masks, ks, numba=name == "numba")
        seconds = best(work).busy / len(masks)
        print(f"  {name}: {1e6 * seconds:.0f} us, {touched / seconds / 1e9:.1f} GB/s, {touched / seconds / rate:.0%} of the memory's")


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    # first, because the peak memory reported for a child process starts at its parent's
    "published": lambda arguments: published_runs(arguments.ye2024),
    "law": lambda _: law(),
    "scaling": lambda _: scaling(),
    "gate": lambda _: gate(),
    "predictor": lambda _: predictor(),
    "report": lambda _: reports(),
    "compare": lambda _: comparisons(),
}

if __name__ == "__main__":
    main()
