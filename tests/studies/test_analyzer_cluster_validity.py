"""Known truth: ten questions a passage, half of whose difficulty they share; what clustered intervals hold, and how often the gate errs.

Every figure's truth is its mean over all samples. As a program, `python tests/studies/test_analyzer_cluster_validity.py PASSAGES SAMPLES`
prints the rows of analyzer/validity.md; tests/support must be on PYTHONPATH.
"""

import math
import sys
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from analyzer_data import MemoryReader, equal_items, make_run
from gate_models import ALPHA, N_OPTIONS, WORST

from analyzer.compare.paired import Paired, paired
from analyzer.gate.bounds import at_worst
from analyzer.gate.gate import TAIL
from analyzer.gate.looks import Looks
from analyzer.gate.policy import LIMITABLE
from analyzer.measure.question import Question
from analyzer.runs.clustering import parse_clustering
from analyzer.runs.loading import select_runs

pytestmark = pytest.mark.simulation
PER_PASSAGE, RHO = 10, 0.5
QUESTION = Question(scorers=("lac",), alphas=(ALPHA,))


def cells(rng: np.random.Generator, n_passages: int, *, clustered: bool = True) -> Paired:
    """A dense and a compressed run of one sample."""
    return compared(*draw(rng, n_passages), clustered=clustered)


def draw(rng: np.random.Generator, n_passages: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a dense and a compressed run: difficulty and damage of an item are half those of its passage."""
    code = np.repeat(np.arange(n_passages), PER_PASSAGE)

    def of_items() -> np.ndarray:
        return math.sqrt(RHO) * rng.normal(size=n_passages)[code] + math.sqrt(1 - RHO) * rng.normal(size=code.size)

    items = equal_items(code.size, N_OPTIONS)
    dense = rng.normal(size=(code.size, N_OPTIONS))
    right = np.arange(code.size), items.answer
    dense[right] += 1.2 + 2.5 * of_items()
    compressed = dense + 0.3 * rng.normal(size=dense.shape)
    compressed[right] += of_items() - 0.3
    return dense, compressed


def compared(dense: np.ndarray, compressed: np.ndarray, *, clustered: bool) -> Paired:
    """The compressed run beside the dense run, ten items a passage."""
    items, code = equal_items(len(dense), N_OPTIONS), np.arange(len(dense)) // PER_PASSAGE
    reader = MemoryReader([items], [make_run(items, dense), make_run(items, compressed, method="rtn")])
    by_id = {str(one): str(number) for one, number in zip(items.item_id.tolist(), code.tolist(), strict=True)}
    question = replace(QUESTION, clustering=parse_clustering(by_id)) if clustered else QUESTION
    return next(found for found in paired(select_runs(reader, {}), question) if found.before)


def rates(n_passages: int, trials: int, *, clustered: bool = True) -> dict[str, dict[str, float]]:
    """Share of intervals that hold each figure's truth; of gates that pass, fail and decide nothing with the limit at the truth."""
    rng, intervals, bounds = np.random.default_rng([5, n_passages]), defaultdict(list), defaultdict(list)
    for _ in range(trials):
        cell = cells(rng, n_passages, clustered=clustered)
        for name, one in {**{n: cell.after.estimates[n] for n in ("accuracy", "set_size")}, **cell.changes}.items():
            if name in ("accuracy", "set_size", "accuracy_change", "set_size_change", "flips", "kl"):
                intervals[name].append((one.value, *one.interval()))
        for name, figure in LIMITABLE.items():
            amount = at_worst(figure.amount(cell, QUESTION), WORST, name) if figure.unbounded else figure.amount(cell, QUESTION)
            bounds[name].append((amount.estimate.value, amount.low(TAIL), amount.high(TAIL), amount.undecided is not None))
    held: dict[str, dict[str, float]] = {}
    for name, rows in intervals.items():
        value, low, high = np.array(rows).T
        held[f"interval of {name}"] = {"holds": float(np.mean((low <= value.mean()) & (value.mean() <= high)))}
    for name, rows in bounds.items():
        value, low, high, undecided = np.array(rows).T
        above, below = (low > value.mean()) & (undecided == 0), (high < value.mean()) & (undecided == 0)
        passed, failed = (above, below) if LIMITABLE[name].at_least else (below, above)
        shares = {"passes": passed, "fails": failed, "undecided": undecided}
        held[f"gate on {name}"] = {result: float(np.mean(share)) for result, share in shares.items()}
    return held


def check(found: dict[str, dict[str, float]], trials: int) -> None:
    noise = 3.1 * math.sqrt(0.05 / trials)
    for name, shares in found.items():
        assert shares.get("holds", 0.95) > 0.93 - noise, (name, shares)
        assert max(shares.get("passes", 0), shares.get("fails", 0)) < TAIL + noise, (name, shares)


def test_gates_and_intervals_over_passages_err_no_more_than_stated() -> None:
    """50 samples of 100 passages; without clusters, intervals of accuracy hold the truth in fewer than 85 % of the same samples."""
    check(rates(100, 50), 50)
    assert rates(100, 50, clustered=False)["interval of accuracy"]["holds"] < 0.85


@pytest.mark.slow
@pytest.mark.parametrize("n_passages", [50, 200])
def test_known_truth_over_passages(n_passages: int) -> None:
    """400 samples: 95 % intervals hold 93 to 97 % but for noise, and a model at its limit passes or fails in at most 2.5 %."""
    check(rates(n_passages, 400), 400)


def errors_over_looks(trials: int, n_items: tuple[int, ...], *, clustered: bool, planned: bool) -> dict[str, Counter[str]]:
    """By figure, how many models at their limit at every look ever pass, and ever fail; a look's passages are among the next one's."""
    rng, truth = np.random.default_rng(6), compared(*draw(np.random.default_rng(7), 5_000), clustered=False)
    tails = Looks(items=n_items, spending="pocock").tails(TAIL) if planned else [TAIL] * len(n_items)
    limits = {name: LIMITABLE[name].amount(truth, QUESTION).estimate.value for name in ("accuracy_loss", "flips", "flips_to_wrong")}
    counts = {name: Counter[str]() for name in limits}
    for _ in range(trials):
        dense, compressed = draw(rng, n_items[-1] // PER_PASSAGE)
        ever: dict[str, set[str]] = {name: set() for name in limits}
        for n, tail in zip(n_items, tails, strict=True):
            cell = compared(dense[:n], compressed[:n], clustered=clustered)
            for name, limit in limits.items():
                amount = LIMITABLE[name].amount(cell, QUESTION)
                ever[name] |= {"pass"} if amount.high(tail) < limit else {"fail"} if amount.low(tail) > limit else set()
        for name, found in ever.items():
            counts[name].update(found)
    return counts


@pytest.mark.slow
def test_planned_looks_at_passages_err_as_little_as_one() -> None:
    """Ten looks at 200 to 1,100 items, counted in items and with passages as units: neither error beyond 2.5 % and noise in 60 samples."""
    looks = tuple(range(200, 1_101, 100))
    allowed = 0.025 * 60 + 3.1 * math.sqrt(0.025 * 60) + 1
    sure = errors_over_looks(60, looks, clustered=True, planned=True)
    assert max(max(found["pass"], found["fail"]) for found in sure.values()) <= allowed, sure
    unplanned = errors_over_looks(60, looks, clustered=False, planned=False)
    assert max(max(found["pass"], found["fail"]) for found in unplanned.values()) > 0.15 * 60, unplanned


if __name__ == "__main__":
    count, n_trials = int(sys.argv[1]), int(sys.argv[2])
    for clusters in (True, False):
        for figure_name, found_shares in rates(count, n_trials, clustered=clusters).items():
            text = ", ".join(f"{what} {100 * s:.1f} ± {100 * math.sqrt(max(s * (1 - s), 0.25 / n_trials) / n_trials):.1f}"
                             for what, s in found_shares.items())  # fmt: skip
            print(f"| {figure_name} | {count} | {'yes' if clusters else 'no'} | {text} |", flush=True)
