"""What a run's answers say without prediction sets: accuracy, likelihood, calibration of the probs, which answers are chosen.

Each metric is an `Estimate` over items. Names in results: accuracy, nll, brier, ece, aurc, option_mass, idk_rate, none_of_above_rate,
tie_rate. `dependence` says how many independent units the items are: a question that was asked more than once carries less information.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from analyzer.runs.view import RunView, once_per_view
from analyzer.stats.arrays import BoolArray, FloatArray, over_options, sum_of_known
from analyzer.stats.clusters import design_effect
from analyzer.stats.estimate import NOTHING, Estimate, mean
from analyzer.stats.probs import rising_order
from schemas.items import IDK, NONE_OF_THE_ABOVE

METRICS = ("accuracy", "nll", "brier", "ece", "aurc", "option_mass", "idk_rate", "none_of_above_rate", "tie_rate")
BINS = 15
IDK_INDEX, NONE_INDEX, BENCHMARK_OPTIONS = 4, 5, 6  # options E and F of the benchmark's items


@once_per_view
def answer_metrics(view: RunView) -> dict[str, Estimate]:
    """Return every metric of a run; NOTHING (NaN) for a metric whose data the run lacks."""
    if view.n_items == 0:
        return dict.fromkeys(METRICS, NOTHING)
    nll = -view.log_probs[np.arange(view.n_items), view.answer]
    return {
        "accuracy": mean(view.correct, view.clusters, share=True),
        "nll": replace(mean(nll, view.clusters, least=0.0), skewed=True),
        "brier": mean(_brier(view), view.clusters, least=0.0, most=2.0),
        "ece": _ece(view),
        "aurc": _aurc(view),
        "option_mass": _option_mass(view),
        "idk_rate": letter_rate(view, IDK),
        "none_of_above_rate": letter_rate(view, NONE_OF_THE_ABOVE),
        "tie_rate": mean(ties(view), view.clusters, share=True),
    }


@once_per_view
def dependence(view: RunView) -> dict[str, Any]:
    """Return how many units the items are.

    n_questions   : number of different questions.
    n_clusters    : number of clusters, which count as one unit each: the questions, unless another clustering was chosen.
    design_effect : variance of accuracy with these clusters, divided by the variance for independent items; None if every item is a
                    cluster of its own, or if nothing varies.
    """
    n_questions = int(np.count_nonzero(np.bincount(view.items.question[view.position])))
    clusters = view.clusters
    if clusters is None:
        return {"n_questions": n_questions, "n_clusters": view.n_items, "design_effect": None}
    numbers = np.unique(clusters.code, return_inverse=True)[1]
    effect = design_effect(answer_metrics(view)["accuracy"].influence, numbers)
    return {"n_questions": n_questions, "n_clusters": clusters.count, "design_effect": effect if math.isfinite(effect) else None}


def chooses(view: RunView, text: str) -> BoolArray | None:
    """Return (item,) whether the run chooses "I don't know" (E) or "None of the above" (F); None if the items have no such option."""
    if (view.n_options != BENCHMARK_OPTIONS).any():
        return None
    return np.asarray(view.chosen == (IDK_INDEX if text == IDK else NONE_INDEX))


def letter_rate(view: RunView, text: str) -> Estimate:
    """Return the share of items answered with that option."""
    chosen = chooses(view, text)
    return NOTHING if chosen is None else mean(chosen, view.clusters, share=True)


def ties(view: RunView) -> BoolArray:
    """Return (item,) whether any two of an item's options have the same logit."""
    rising = view.rising_logits  # NaN last, and NaN equals nothing
    return over_options(np.logical_or, rising[:, 1:] == rising[:, :-1])


def _brier(view: RunView) -> FloatArray:
    """Sum over options of (prob - 1{answer})^2, in [0, 2]."""
    of_answer = view.probs[np.arange(view.n_items), view.answer]
    return np.asarray(sum_of_known(view.probs**2) - 2 * of_answer + 1)


def _ece(view: RunView) -> Estimate:
    """Expected calibration error over 15 equal bins of the top prob. Source: Guo et al. 2017, arXiv:1706.04599, equation 3.

    Its influence treats the sign of each bin's gap as known, which is right for gaps that are larger than their noise.
    """
    gap = view.top_prob - view.correct
    bins = np.minimum((view.top_prob * BINS).astype(np.int64), BINS - 1)
    sign = np.sign(np.bincount(bins, gap, BINS))[bins]
    return mean(sign * gap, view.clusters, least=0.0, most=1.0)


def _aurc(view: RunView) -> Estimate:
    """Area under the risk-coverage curve: mean over k of the error rate among the k items of highest top prob.

    Source : Geifman & El-Yaniv 2017, arXiv:1705.08500.
    """
    order = rising_order(-view.top_prob)
    wrong = (~view.correct[order]).astype(np.float64)
    k = np.arange(1, view.n_items + 1)
    risk = wrong.cumsum() / k
    # more weight on an item adds weight to its own risk, and moves the risk of every prefix that contains the item
    on_prefixes = wrong * (1 / k)[::-1].cumsum()[::-1] - (risk / k)[::-1].cumsum()[::-1]
    influence = np.empty(view.n_items)
    influence[order] = risk + on_prefixes
    value = float(risk.mean())
    return Estimate(value, influence - influence.mean(), least=0.0, most=1.0, clusters=view.clusters)


def _option_mass(view: RunView) -> Estimate:
    """Sum of the options' probabilities in the full vocabulary, at most 1; NOTHING if the run does not record it.

    Sums above 1 by more than rounding make the run unreliable (see `analyzer.measure.unreliable`).
    """
    if np.isnan(view.logsumexp).any():
        return NOTHING
    return mean(np.minimum(view.option_mass, 1.0), view.clusters, share=True)
