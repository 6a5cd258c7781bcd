"""One run under one scorer at every alpha: one sort, then the exact split law or drawn splits."""

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from analyzer.arrays import BoolArray, FloatArray
from analyzer.drawn import drawn_moments
from analyzer.estimate import Estimate, mean
from analyzer.influence import split_influence
from analyzer.law import Moments, RankLaw, Statistic, crossings, moments, rank_law
from analyzer.measured import Measured, nothing, uacc
from analyzer.question import Question
from analyzer.ranks import Ranks, rank_scores, threshold_rank
from analyzer.scorers import SCORERS
from analyzer.splits import calibration_size, draw_splits
from analyzer.uniform import item_uniform
from analyzer.view import RunView


def measure(view: RunView, scorer: str, question: Question) -> Iterator[Measured]:
    """Yield one cell per alpha of the question.

    Raises UsageError where the calibration fraction leaves one side of the split empty.
    """
    if view.n_items == 0:
        yield from (nothing(view, scorer, alpha) for alpha in question.alphas)
        return
    scored = _score(view, scorer, question)
    yield from (_cell(view, scorer, alpha, scored) for alpha in question.alphas)


def set_statistics(ranks: Ranks) -> dict[str, Statistic]:
    """Return what is measured of prediction sets, by name."""
    size = crossings(np.sort(ranks.option, axis=0), ranks.own)
    n_options = ranks.option.shape[0]
    return {
        "coverage": Statistic(crossings(ranks.answer[None], ranks.own), (0, 1), True),
        "set_size": Statistic(size, tuple(range(n_options + 1)), False),
        "empty_rate": Statistic(size, (1,) + (0,) * n_options, True),
        "singleton_rate": Statistic(size, (0, 1) + (0,) * (n_options - 1), True),
    }


class Scored(NamedTuple):
    """A run under one scorer, sorted once for every alpha; `masks` (split, item) is None for all splits, `tested` likewise."""

    n_calibration: int
    ranks: Ranks
    statistics: dict[str, Statistic]
    masks: BoolArray | None
    tested: FloatArray | None


def _score(view: RunView, scorer: str, question: Question) -> Scored:
    n = calibration_size(view.n_items, question.calibration_fraction)
    scores = SCORERS[scorer](view.probs, item_uniform(view.items.item_id[view.position]))
    ranks = rank_scores(scores, view.answer, view.probs, question.empty)
    masks = None if question.split.seeds is None else draw_splits(view.n_items, n, question.split.seeds)
    return Scored(n, ranks, set_statistics(ranks), masks, None if masks is None else 1 - masks.mean(axis=0))


def _cell(view: RunView, scorer: str, alpha: Fraction, scored: Scored) -> Measured:
    n, k = scored.n_calibration, threshold_rank(scored.n_calibration, alpha)
    law = rank_law(view.n_items, n, k)
    found = {name: _moments(statistic, law, scored) for name, statistic in scored.statistics.items()}
    estimates = {name: _estimate(statistic, found[name], law, scored) for name, statistic in scored.statistics.items()}
    accuracy = mean(view.correct, share=True)
    return Measured(
        view,
        scorer,
        alpha,
        n,
        {"accuracy": accuracy, "uacc": uacc(accuracy, estimates["set_size"], view), **estimates},
        {"coverage_sd": found["coverage"].sd, "set_size_sd": found["set_size"].sd},
        f"{n} calibration items are too few for alpha {float(alpha):g}: every set is full" if k > n else None,
    )


def _moments(statistic: Statistic, law: RankLaw, scored: Scored) -> Moments:
    if scored.masks is None:
        return moments(law, statistic)
    return drawn_moments(law.k, statistic, scored.ranks.own, scored.masks)


def _estimate(statistic: Statistic, found: Moments, law: RankLaw, scored: Scored) -> Estimate:
    influence = split_influence(law, scored.ranks.own, statistic, scored.tested)
    return Estimate(found.mean, influence, statistic.share)
