"""What a decision costs, for the bench: the gate's checks of one pair of runs, its exact tests for few items, and a predictor's rows."""

from functools import partial

import numpy as np

from analyzer.api import calibrate
from analyzer.bench.timing import ALPHAS, REPEATS, best, simulated_data
from analyzer.compare.compare import pair_record
from analyzer.compare.paired import Paired, paired
from analyzer.compare.two_axis_verdict import Tolerances
from analyzer.gate.gate import check_pairs
from analyzer.gate.policy import LIMITABLE, read_policy
from analyzer.measure.question import Question
from analyzer.runs.loading import select_runs
from analyzer.runs.memory import MemoryReader, read_data_set

ITEMS = (200, 2_000, 10_000)
SCORERS = ("lac", "aps")
ROWS = 100_000


def gate() -> None:
    """Print the milliseconds that the gate takes for one pair of runs with a limit on every figure, and a pair's tests and verdict."""
    question, limits = Question(scorers=SCORERS), read_policy(None, [f"{name}=0.5" for name in LIMITABLE]).limits
    print(f"gate: one compressed run, {len(LIMITABLE)} limits, scorers {' and '.join(SCORERS)}")
    for n_items in ITEMS:
        seconds = best(lambda n=n_items: check_pairs(_measured(n, question), question, limits), 3).busy  # type: ignore[misc]
        before = best(partial(_measured, n_items, question), 3).busy
        print(f"  {n_items:>6,} items, all limits {1e3 * (seconds - before):8.1f} ms", end="")
        seconds = best(lambda n=n_items: _records(_measured(n, question), question), 3).busy  # type: ignore[misc]
        print(f", tests and verdict {1e3 * (seconds - before):8.1f} ms, measuring both runs {1e3 * before:8.1f} ms")


def predictor() -> None:
    """Print the microseconds that a predictor takes per question, asked one by one and many at a time."""
    made = calibrate(simulated_data(2_000), alpha=ALPHAS[9], scorer="aps")
    rows = np.random.default_rng(1).normal(size=(ROWS, len(made.letters)))
    single = best(lambda: [made.decide(row) for row in rows[:500]], REPEATS).busy / 500
    many = best(lambda: made.decide(rows), REPEATS).busy / ROWS
    print(f"predictor: {1e6 * single:.1f} us for a question by itself, {1e6 * many:.2f} us a row of {ROWS:,}")


def _measured(n_items: int, question: Question) -> list[Paired]:
    """Return the cells of a dense run and a noisier copy of it; everything is measured anew."""
    dense = simulated_data(n_items)
    noise = 0.4 * np.random.default_rng(2).normal(size=dense["logits"].shape)
    compressed = dense.assign(logits=dense["logits"] + noise).assign_attrs(method="wanda", level="0.5")
    pair = [read_data_set(one) for one in (dense, compressed)]
    reader = MemoryReader([pair[0].items], [one.run for one in pair])
    return list(paired(select_runs(reader, {}), question))


def _records(cells: list[Paired], question: Question) -> None:
    for cell in cells:
        pair_record([cell], question, Tolerances())
