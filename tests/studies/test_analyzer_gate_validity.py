"""How often the gate passes, and fails, a compressed model whose true figure is exactly at the limit: the hardest case of both errors.

Populations of 200,000 items stand for the truth (tests/support/gate_models.py). As a program it prints the rows of analyzer/validity.md:

    PYTHONPATH=tests/support python tests/studies/test_analyzer_gate_validity.py KIND N TRIALS
"""

import math
import sys
from collections import Counter

import numpy as np
import pytest
from gate_models import ALPHA, KINDS, SETS, bounded, compared, draw, truth

from analyzer.gate.gate import TAIL
from analyzer.gate.policy import LIMITABLE
from analyzer.measure.question import Question

pytestmark = pytest.mark.simulation
Rates = dict[str, Counter[str]]


def rates(kind: str, n_items: int, trials: int, scorer: str = "lac", seed: int = 1) -> Rates:
    """Count by figure how often a limit at the true value is passed, is failed, and is undecided whatever the bounds say."""
    rng = np.random.default_rng([seed, n_items, KINDS.index(kind)])
    question, known = Question(scorers=(scorer,), alphas=(ALPHA,)), truth(kind, n_items, scorer)
    counts: Rates = {name: Counter() for name in LIMITABLE if scorer == "lac" or name in SETS}
    for _ in range(trials):
        dense, compressed = draw(kind, rng, n_items)
        cell = compared(dense, compressed, question)
        for name in counts:
            figure, amount = LIMITABLE[name], bounded(cell, name, question)
            above, below = amount.low(TAIL) > known[name], amount.high(TAIL) < known[name]
            passed, failed = (above, below) if figure.at_least else (below, above)
            counts[name][("undecided" if amount.undecided else "passed" if passed else "failed" if failed else "open")] += 1
    return counts


def most(trials: int) -> int:
    """The count that 2.5 % exceeds once in a thousand times."""
    expected = 0.025 * trials
    return math.floor(expected + 3.1 * math.sqrt(expected) + 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_items_at_the_limit_hardly_ever_decide(kind: str) -> None:
    """60 samples of 100 items for every figure of items; figures of sets are undecided, with 5 calibration items above the threshold."""
    for name, found in rates(kind, 100, 60).items():
        assert max(found["passed"], found["failed"]) <= most(60), (name, found)
        assert name not in SETS or found["undecided"] == 60


@pytest.mark.slow
@pytest.mark.parametrize("scorer", ["lac", "aps"])
@pytest.mark.parametrize("n_items", [100, 200, 500, 2_000])
@pytest.mark.parametrize("kind", KINDS)
def test_false_passes_and_false_failures_stay_below_their_tails(kind: str, n_items: int, scorer: str) -> None:
    """200 samples of each model and size: neither error beyond 2.5 % and Monte Carlo noise, for every figure that a policy can limit."""
    for name, found in rates(kind, n_items, 200, scorer).items():
        assert max(found["passed"], found["failed"]) <= most(200), (name, found)


if __name__ == "__main__":
    kinds, counts, n_trials = sys.argv[1].split(","), [int(n) for n in sys.argv[2].split(",")], int(sys.argv[3])
    for kind in kinds:
        for scorer in ("lac", "aps"):
            for n_items in counts:
                for name, found in rates(kind, n_items, n_trials, scorer).items():
                    shares = [found[result] / n_trials for result in ("passed", "failed", "undecided")]
                    errors = [math.sqrt(max(share * (1 - share), 0.25 / n_trials) / n_trials) for share in shares[:2]]
                    label = f"{name}, {scorer}" if name in SETS else name
                    text = [f"{100 * s:.1f} ± {100 * e:.1f}" for s, e in zip(shares, errors, strict=False)]
                    print(f"| {label} | {kind} | {n_items:,} | {text[0]} | {text[1]} | {100 * shares[2]:.0f} |", flush=True)
