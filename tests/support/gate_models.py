"""Simulated dense and compressed models for the gate's error rates, and the true value of every figure that a policy can limit."""

from fractions import Fraction
from functools import lru_cache

import numpy as np
from analyzer_data import MemoryReader, equal_items, make_run, make_view
from scipy.special import betainc

from analyzer.compare.paired import Paired, paired
from analyzer.conformal.ranks import Ranks, rank_scores, threshold_rank
from analyzer.gate.bounds import Bounded, at_worst
from analyzer.gate.policy import LIMITABLE
from analyzer.measure.question import Question
from analyzer.measure.scored import scores_of
from analyzer.runs.loading import select_runs
from analyzer.runs.view import RunView

ALPHA, N_OPTIONS, POPULATION, WORST = Fraction(1, 10), 4, 200_000, 40.0
KINDS = ("generic", "rare damage", "heavy tails", "near chance", "accurate")
SKILL = {"generic": 1.5, "rare damage": 2.5, "heavy tails": 1.5, "near chance": 0.1, "accurate": 4.6}
SETS = ("set_size_growth", "coverage_after_transfer")


def draw(kind: str, rng: np.random.Generator, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a dense model and of its compression: noise everywhere, 1 % of the items ruined, or noise with heavy tails."""
    dense = rng.normal(size=(n_items, N_OPTIONS))
    dense[np.arange(n_items), equal_items(n_items, N_OPTIONS).answer] += SKILL[kind]
    if kind == "rare damage":
        compressed = dense + 0.05 * rng.normal(size=dense.shape)
        ruined = rng.random(n_items) < 0.01
        compressed[ruined] = 6 * rng.normal(size=(int(ruined.sum()), N_OPTIONS))
    elif kind == "heavy tails":
        compressed = dense + np.clip(0.3 * rng.standard_t(2, size=dense.shape), -5, 5)
    else:
        compressed = dense + 0.5 * rng.normal(size=dense.shape)
    return dense, compressed


@lru_cache(maxsize=2)
def population(kind: str) -> tuple[RunView, RunView]:
    dense, compressed = draw(kind, np.random.default_rng(99), POPULATION)
    items = equal_items(POPULATION, N_OPTIONS)
    return make_view(items, dense), make_view(items, compressed, method="rtn")


def truth(kind: str, n_items: int, scorer: str) -> dict[str, float]:
    """Every figure of the population; those of sets with thresholds of n_items / 2 calibration items, whose level has a beta law."""
    dense, compressed = population(kind)
    p, q = dense.probs, compressed.probs
    middle = np.log((p + q) / 2)
    right = [view.correct for view in (dense, compressed)]
    figures = {
        "accuracy_loss": float(right[0].mean() - right[1].mean()),
        "flips": float((right[0] != right[1]).mean()),
        "flips_to_wrong": float((right[0] & ~right[1]).mean()),
        "answers_changed": float((dense.chosen != compressed.chosen).mean()),
        "kl": float((p * np.log(p / q)).sum(axis=1).mean()),
        "kl_reverse": float((q * np.log(q / p)).sum(axis=1).mean()),
        "js": float((p * (np.log(p) - middle) + q * (np.log(q) - middle)).sum(axis=1).mean() / 2),
    }
    question = Question(scorers=(scorer,), alphas=(ALPHA,))
    scores = [scores_of(view, view.probs, scorer, question) for view in (dense, compressed)]
    ranks_of_runs = [rank_scores(scores[i], view.answer, view.probs) for i, view in enumerate((dense, compressed))]
    transferred = rank_scores(scores[1], dense.answer, q, calibration=scores[0][np.arange(POPULATION), dense.answer])
    sizes = [_over_thresholds(ranks, ranks.option, n_items // 2) for ranks in ranks_of_runs]
    figures["set_size_growth"] = sizes[1] - sizes[0]
    return figures | {"coverage_after_transfer": _over_thresholds(transferred, transferred.answer[None], n_items // 2)}


def _over_thresholds(ranks: Ranks, rows: np.ndarray, n: int) -> float:
    k, level = threshold_rank(n, ALPHA), np.arange(1, ranks.n_items + 1) / ranks.n_items
    chance = np.diff(betainc(k, n + 1 - k, level), prepend=0.0)
    entering = np.bincount(rows.ravel(), minlength=ranks.n_items + 2)[: ranks.n_items]
    return float(chance @ np.cumsum(entering)) / ranks.n_items


def compared(dense: np.ndarray, compressed: np.ndarray, question: Question) -> Paired:
    """The cell of the compressed model beside its dense model, for one scorer and alpha."""
    items = equal_items(len(dense), N_OPTIONS)
    reader = MemoryReader([items], [make_run(items, dense), make_run(items, compressed, method="rtn")])
    return next(cell for cell in paired(select_runs(reader, {}), question) if cell.before)


def bounded(cell: Paired, name: str, question: Question) -> Bounded:
    """A figure with its bounds, as the gate computes them; the stated worst value is WORST."""
    figure = LIMITABLE[name]
    amount = figure.amount(cell, question)
    return at_worst(amount, WORST, name) if figure.unbounded else amount
