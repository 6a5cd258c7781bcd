"""Measure one run under one scorer at every alpha: sort the scores once, then use the exact split law or drawn splits."""

import math
from fractions import Fraction
from inspect import signature
from typing import Any, NamedTuple

import numpy as np

from analyzer.conformal.coverage_law import ROUNDING, coverage_band, coverage_quantiles
from analyzer.conformal.drawn_splits import drawn_values, over_splits
from analyzer.conformal.influence import drawn_law, split_influence
from analyzer.conformal.ranks import Ranks, rank_scores, threshold_rank
from analyzer.conformal.set_size_interval import inverted_where_bent, no_interval
from analyzer.conformal.split_law import RankLaw, SetStatistics, rank_law, set_statistics
from analyzer.conformal.split_moments import Moments, all_moments
from analyzer.conformal.splits import calibration_size, draw_splits, draw_stratified, given_split
from analyzer.conformal.tilted_items import Threshold, threshold_design_effect
from analyzer.measure.cell import Cell, too_few, with_uacc
from analyzer.measure.question import Question
from analyzer.runs.answer_metrics import answer_metrics
from analyzer.runs.view import RunView
from analyzer.scorers import PLUG_INS, SCORERS, Scorer, load_plug_ins, scorer_parameters
from analyzer.stats.arrays import BoolArray, FloatArray
from analyzer.stats.estimate import Estimate
from analyzer.stats.random_words import item_uniform
from schemas.errors import UsageError

load_plug_ins()  # here, so that a worker process has them too


class ScoredRun(NamedTuple):
    """A run under one scorer, sorted once for all alphas.

    ks     : (alpha,) rank of the threshold among the calibration scores.
    exact  : mean and sd over all splits of each statistic, (alpha, statistic), also where splits are drawn.
    masks  : (split, item) true where an item calibrates; None for all splits.
    values : (split, alpha, statistic) means of drawn splits; None for all splits.
    """

    view: RunView
    question: Question
    scorer: str
    n_calibration: int
    ranks: Ranks
    statistics: SetStatistics
    ks: tuple[int, ...]
    exact: Moments
    masks: BoolArray | None
    values: FloatArray | None

    def all_splits(self, alpha: Fraction) -> Moments:
        """Return mean and sd over all splits of each statistic, (statistic,), at one of the question's alphas."""
        number = self._number(alpha)
        return Moments(self.exact.mean[number], self.exact.sd[number])

    def drawn(self, alpha: Fraction) -> FloatArray | None:
        """Return (split, statistic) the means of drawn splits at one of the question's alphas; None for all splits."""
        return None if self.values is None else self.values[:, self._number(alpha)]

    def _number(self, alpha: Fraction) -> int:
        return self.ks.index(threshold_rank(self.n_calibration, alpha))  # alphas with the same k have the same sets


def drawn_over(statistics: SetStatistics, scored: ScoredRun, k: int) -> Moments:
    """Return mean and sd over the drawn splits of other statistics of a scored run; k is the threshold's rank."""
    if scored.masks is None:
        raise ValueError("the question is about all splits, so there are no drawn ones")
    return over_splits(drawn_values(statistics, scored.ranks.item_rank, scored.masks, [k])[:, 0])


def calibration_masks(view: RunView, question: Question) -> BoolArray | None:
    """Return (split, item) bool, the calibration items of every drawn split or of a split from a file; None for all splits."""
    split = question.split
    if split.calibration_ids is not None:
        original = view.items.original_ids
        return given_split(view.items.item_id[view.position], split, [original[position] for position in view.position])
    n = calibration_size(view.n_items, question.calibration_fraction)
    if split.seeds is None:
        if question.stratify:
            raise UsageError("stratified splits must be drawn; set their number with --split N")
        return None
    if question.stratify:
        return draw_stratified(view.items.subject[view.position], question.calibration_fraction, split.seeds)
    return draw_splits(view.n_items, n, split.seeds)


def scores_of(view: RunView, probs: FloatArray, scorer: str, question: Question) -> FloatArray:
    """Return (item, option) scores; calibration and prediction both use this function.

    Raises UsageError if a scorer of a plug-in, or one that is given as a function, returns no number for one of an item's own options.
    """
    function = SCORERS[scorer] if scorer in PLUG_INS else question.functions.get(scorer)
    parameters = scorer_parameters(scorer, question.parameters.get(scorer, {}), function)
    u = item_uniform(view.items.item_id[view.position])
    if function is None:
        return SCORERS[scorer](probs, u, **parameters)
    scores = np.asarray(function(probs, u, **parameters) if "u" in signature(function).parameters else function(probs, **parameters))
    if scores.shape != probs.shape or scores.dtype.kind != "f" or np.isnan(scores[np.isfinite(probs)]).any():
        expected = f"numbers of shape {probs.shape} (item, option), NaN only where an item has no option"
        raise UsageError(f"scorer {scorer} returned {scores.dtype} of shape {scores.shape}; expected {expected}")
    return np.where(np.isfinite(probs), scores, np.nan).astype(np.float64)


def ranks_of(view: RunView, scorer: str, question: Question) -> Ranks:
    """Return the ranks of a run under one scorer. They are kept beside the view and released with it: all questions share one sort."""
    parameters = tuple(sorted(question.parameters.get(scorer, {}).items()))
    asked = scorer, parameters, id(question.functions.get(scorer)), question.empty
    held: dict[Any, tuple[Scorer | None, Ranks]] = vars(view).setdefault("ranks", {})
    if asked not in held:
        ranks = rank_scores(scores_of(view, view.probs, scorer, question), view.answer, view.probs, question.empty)
        held[asked] = question.functions.get(scorer), ranks  # with the function, so that no other one gets its id
    return held[asked][1]


def parameter_text(scorer: str, question: Question) -> str:
    """Return a scorer's parameters in the form of the records, such as `penalty=0.1 k_reg=2`; "" for a scorer without parameters."""
    parameters = scorer_parameters(scorer, question.parameters.get(scorer, {}), question.functions.get(scorer))
    return " ".join(f"{name}={value:g}" for name, value in parameters.items())


def score_run(view: RunView, probs: FloatArray, scorer: str, question: Question, masks: BoolArray | None) -> ScoredRun:
    """Return a run under one scorer, ready for all alphas; probs (item, option) may have been rescaled by a temperature."""
    if probs is view.probs:
        ranks = ranks_of(view, scorer, question)
    else:
        ranks = rank_scores(scores_of(view, probs, scorer, question), view.answer, probs, question.empty)
    statistics = set_statistics(ranks, sizes=question.sizes)
    n = calibration_size(view.n_items, question.calibration_fraction) if masks is None else int(masks[0].sum())
    ks = tuple(threshold_rank(n, alpha) for alpha in question.alphas)
    values = None if masks is None else drawn_values(statistics, ranks.item_rank, masks, ks)
    exact = all_moments([rank_law(view.n_items, n, k) for k in ks], statistics)
    return ScoredRun(view, question, scorer, n, ranks, statistics, ks, exact, masks, values)


def measure_alpha(scored: ScoredRun, alpha: Fraction) -> Cell:
    """Return the cell of a scored run at one of its question's alphas, for all items under one threshold."""
    view, n = scored.view, scored.n_calibration
    k = threshold_rank(n, alpha)
    law, drawn = rank_law(view.n_items, n, k), scored.drawn(alpha)
    exact, threshold = scored.all_splits(alpha), Threshold(law, scored.ranks)
    summary = exact if drawn is None else over_splits(drawn)
    split_errors = None if scored.masks is None else exact.sd / math.sqrt(len(scored.masks))
    estimates = _estimates(threshold, scored, summary, split_errors) | answer_metrics(view)
    return Cell(
        view,
        scored.scorer,
        alpha,
        n,
        with_uacc(estimates, view),
        _facts(threshold, scored, summary, drawn),
        too_few(n, alpha) if k > n else _outside_band(law, scored, float(summary.mean[0])),
        forced=scored.question.empty == "top1",
    )


def _outside_band(law: RankLaw, scored: ScoredRun, coverage: float) -> str | None:
    """Return a note if the coverage of drawn splits (or a split from a file) contradicts the exact law: items are then not exchangeable."""
    if scored.masks is None:
        return None
    low, high = coverage_band(law, scored.statistics.table, len(scored.masks))
    if low - ROUNDING <= coverage <= high + ROUNDING:
        return None
    return f"coverage {coverage:.3f} is outside the 99.9 % band [{low:.3f}, {high:.3f}] of its exact law"


def influence_of(law: RankLaw, scored: ScoredRun, statistics: SetStatistics) -> FloatArray:
    """Return (statistic, item) influence on statistics of a scored run, over all splits or the drawn ones."""
    drawn = None if scored.masks is None else drawn_law(scored.ranks.item_rank, scored.masks, law.k)
    return split_influence(law, scored.ranks.item_rank, statistics, drawn)


def _estimates(threshold: Threshold, scored: ScoredRun, summary: Moments, split_errors: FloatArray | None) -> dict[str, Estimate]:
    statistics = scored.statistics
    estimates = statistics.estimates(summary.mean, influence_of(threshold.law, scored, statistics), scored.view.clusters)
    return inverted_where_bent(estimates, threshold, statistics, split_errors=split_errors)


def _facts(threshold: Threshold, scored: ScoredRun, summary: Moments, drawn: FloatArray | None) -> dict[str, float | str]:
    law = threshold.law
    spread = scored.statistics.names if scored.question.sizes else ("coverage", "set_size")
    facts: dict[str, float | str] = {f"{name}_sd": float(summary.sd[scored.statistics.names.index(name)]) for name in spread}
    if scored.question.quantiles:
        facts |= coverage_quantiles(law, scored.statistics.table, None if drawn is None else drawn[:, 0])
    alike = threshold_design_effect(threshold, scored.view.clusters)
    facts["set_size_note"] = no_interval(law, alike) or math.nan
    facts["threshold_ties"] = float(law.weights @ scored.ranks.ties[law.first : law.first + law.weights.size]) / law.n_items
    return facts | {"parameters": parameter_text(scored.scorer, scored.question)}
