"""Intervals of set size over a grid of models, scorers, alphas and sizes, with a known truth: what a user is shown, by whichever way."""

from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from analyzer_data import equal_items, make_view

from analyzer.measure.cell import Cell
from analyzer.measure.measure_run import measure_run
from analyzer.measure.question import Question
from analyzer.stats.combined import difference
from analyzer.stats.estimate import Estimate

TRIALS = 200


class Setting(NamedTuple):
    scorer: str
    alpha: Fraction
    kind: str
    n_options: int = 4


TENTH, TWENTIETH = Fraction(1, 10), Fraction(1, 20)
GRID = [
    *(Setting("lac", TENTH, kind) for kind in ("some", "little", "0.90", "0.88", "0.95", "0.98", "graded", "t3", "coarse", "chance")),
    *(Setting("lac", TWENTIETH, kind) for kind in ("some", "0.95", "graded", "0.99")),
    *(Setting("aps", TENTH, kind, n_options) for kind in ("some", "little", "t3", "coarse") for n_options in (4, 6)),
    *(Setting("aps", TWENTIETH, kind) for kind in ("some", "little", "graded", "t3")),
    *(Setting(scorer, TENTH, "some") for scorer in ("raps", "topk", "margin", "saps")),
    Setting("lac", Fraction(1, 4), "0.75"),
]


def drawn_logits(rng: np.random.Generator, kind: str, answer: np.ndarray, n_options: int) -> np.ndarray:
    """Logits of a kind of model; a number is the accuracy of one that is as sure when it errs."""
    logits, items = rng.normal(size=(answer.size, n_options)), np.arange(answer.size)
    if kind in ("some", "coarse"):
        logits[items, answer] += rng.gamma(2, 0.8, answer.size)
        return np.round(logits * 2) / 2 if kind == "coarse" else logits
    if kind == "graded":
        logits[items, answer] += rng.gamma(4, 1.2, answer.size)
    elif kind == "little":
        logits[items, answer] += 0.5
    elif kind == "t3":
        logits = rng.standard_t(3, size=logits.shape)
        logits[items, answer] += 2
    elif kind != "chance":
        other = (answer + rng.integers(1, n_options, answer.size)) % n_options
        logits *= 0.5
        logits[items, np.where(rng.random(answer.size) < float(kind), answer, other)] += 5
    return logits


def cells(rng: np.random.Generator, setting: Setting, n_items: int) -> list[Cell]:
    """A model and its noisier copy on one sample of items."""
    items = equal_items(n_items, setting.n_options)
    logits = drawn_logits(rng, setting.kind, items.answer.astype(int), setting.n_options)
    question = Question(alphas=(setting.alpha,), scorers=(setting.scorer,))
    runs = (logits, logits + 0.4 * rng.normal(size=logits.shape))
    return [next(measure_run(make_view(items, one), setting.scorer, question)) for one in runs]


def share_held(found: list[Estimate]) -> float:
    truth = float(np.mean([one.value for one in found]))
    return float(np.mean([low <= truth <= high for low, high in (one.interval() for one in found)]))


@pytest.mark.slow
@pytest.mark.parametrize("n_items", [200, 600, 2_000])
@pytest.mark.parametrize("setting", GRID, ids=lambda one: f"{one.scorer}-{float(one.alpha):g}-{one.kind}-{one.n_options}")
def test_intervals_of_set_size_hold_the_truth(setting: Setting, n_items: int) -> None:
    """At least 93 % of intervals of set size and of its change hold the mean of the estimator, less two Monte Carlo errors."""
    rng = np.random.default_rng(7)
    found = [cells(rng, setting, n_items) for _ in range(TRIALS)]
    sizes = [[cell.estimates["set_size"] for cell in pair] for pair in found]
    held = share_held([pair[0] for pair in sizes]), share_held([difference(pair[1], pair[0]) for pair in sizes])
    assert min(held) >= 0.93 - 2 * np.sqrt(0.93 * 0.07 / TRIALS), held


@pytest.mark.parametrize(
    ("n_items", "alpha", "expected"), [(200, Fraction(1, 100), 1), (800, Fraction(1, 100), 4), (60, Fraction(1, 10), 3)]
)
def test_too_few_items_above_the_threshold_give_no_interval_and_the_reason(n_items: int, alpha: Fraction, expected: int) -> None:
    """Neither set size nor its change nor uacc has an interval then, coverage and accuracy do; the record says why."""
    setting = Setting("lac", alpha, "some")
    before, after = cells(np.random.default_rng(1), setting, n_items)
    for one in (
        after.estimates["set_size"],
        after.estimates["uacc"],
        difference(after.estimates["set_size"], before.estimates["set_size"]),
    ):
        assert np.isnan(one.interval()).all() and np.isfinite(one.value)
    assert np.isfinite(after.estimates["accuracy"].interval()).all()
    assert f"{expected} {'is' if expected == 1 else 'are'} expected above the threshold" in str(after.facts["set_size_note"])
