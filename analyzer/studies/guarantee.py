"""`analyze guarantee`: what may be promised of each run. With which probability sets cover, what the next questions will show, how many
questions the model may answer alone.

A threshold made on n calibration items covers 1 - alpha on average over such items; one set of them may well cover less. Beside that
threshold stands the one that covers at least 1 - alpha for all but a share delta of calibration items, and how much larger its sets are.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv

from analyzer.conformal.guarantees import answered_alone, least_abstention, least_calibration, next_coverage, next_right, sure_rank
from analyzer.conformal.influence import split_influence
from analyzer.conformal.ranks import threshold_rank
from analyzer.conformal.set_size_interval import inverted_where_bent
from analyzer.conformal.split_law import rank_law, set_statistics
from analyzer.conformal.split_moments import moments
from analyzer.conformal.splits import calibration_size
from analyzer.conformal.tilted_items import Threshold
from analyzer.measure.cell import Cell
from analyzer.measure.question import Question
from analyzer.measure.records import Record, identity, interval_fields, provenance
from analyzer.measure.scored import ranks_of
from analyzer.measure.unreliable import run_reasons
from analyzer.runs.answer_metrics import dependence
from analyzer.runs.clustering import ITEM, QUESTION
from analyzer.runs.loading import Runs
from analyzer.runs.view import RunView
from analyzer.stats.estimate import Estimate
from analyzer.studies.carry_threshold import check_exact
from schemas.errors import UsageError

DELTA, N_NEXT, RISK = 0.05, 100, 0.1
MOST_NEXT = 1_000_000


class Promise(NamedTuple):
    """What is asked of a guarantee: how often it may fail, for how many next questions, and which risk of answers given alone."""

    delta: float
    n_next: int
    risk: float


def guarantee(runs: Runs, question: Question, *, delta: float = DELTA, n_next: int = N_NEXT, risk: float = RISK) -> list[Record]:
    """Return one record per run, scorer and alpha.

    delta  : share of calibration sets for which a guarantee may fail, in (0, 1).
    n_next : for how many next questions the counts of covered and right answers are foretold.
    risk   : share of answers given alone that may be wrong, in (0, 1).
    Raises UsageError for a value outside these, and for drawn splits.
    """
    check_exact(question, "guarantee")
    if question.clustering.text not in (QUESTION, ITEM):
        raise UsageError(
            f"guarantees count items that are exchangeable one by one, which items in clusters are not; leave --cluster "
            f"{question.clustering.text} out, or keep one item of each cluster"
        )
    for name, value in (("delta", delta), ("risk", risk)):
        if not 0 < value < 1:
            raise UsageError(f"{name} is {value!r}; expected a number in (0, 1)")
    if not 1 <= n_next <= MOST_NEXT:
        raise UsageError(f"the number of next questions is {n_next}; expected 1 to {MOST_NEXT:,}")
    return [
        record
        for view in runs.views()
        if view.n_items > 1
        for scorer in question.scorers
        for record in _records(view, scorer, question, Promise(delta, n_next, risk))
    ]


def _records(view: RunView, scorer: str, question: Question, promise: Promise) -> Iterator[Record]:
    delta, n_next = promise.delta, promise.n_next
    ranks = ranks_of(view, scorer, question)
    statistics, n = set_statistics(ranks), calibration_size(view.n_items, question.calibration_fraction)

    def sizes(k: int) -> Estimate:
        law = rank_law(view.n_items, n, k)
        estimates = statistics.estimates(moments(law, statistics).mean, split_influence(law, ranks.item_rank, statistics), view.clusters)
        return inverted_where_bent(estimates, Threshold(law, ranks), statistics)["set_size"]

    alone = _alone(view, promise)
    for alpha in question.alphas:
        k, sure = threshold_rank(n, alpha), sure_rank(n, alpha, delta)
        covered = next_coverage(n, k, n_next, 1 - delta)
        least = 1.0 if k > n else float(betaincinv(k, n + 1 - k, delta))
        yield (
            identity([Cell(view, scorer, alpha, n, {})])
            | promise._asdict()
            | interval_fields("set_size", sizes(k))
            | {"least_coverage": least, "next_covered_low": covered[0], "next_covered_high": covered[1]}
            | interval_fields("sure_set_size", sizes(sure))
            | {"note": _too_few(n, alpha, delta) if sure > n else None}
            | alone
            | dependence(view)
            | {"unreliable": "; ".join([*run_reasons(view), *_dependent(view, question)]) or None}
            | provenance([Cell(view, scorer, alpha, n, {})], question)
        )


def _dependent(view: RunView, question: Question) -> list[str]:
    """Return why the guarantees do not hold for items of which some ask the same question: their laws are those of independent items."""
    n_questions = dependence(view)["n_questions"]
    if n_questions == view.n_items or question.clustering.text == ITEM:
        return []
    return [f"{view.n_items:,} items ask {n_questions:,} different questions, and the guarantees are those of independent items"]


def _alone(view: RunView, promise: Promise) -> Record:
    """What holds of a run's own answers, whatever the sets: the next right ones, how many must be left out, how many may be given alone."""
    delta, n_next, risk = promise
    n_right = int(view.correct.sum())
    right = next_right(n_right, view.n_items, n_next, 1 - delta)
    value, low, high = least_abstention(view.correct, risk, delta / 2)
    answered = answered_alone(np.nanmax(view.probs, axis=1), view.correct, risk, delta)
    threshold = answered.threshold if math.isfinite(answered.threshold) else None
    return {
        "next_right_low": right[0],
        "next_right_high": right[1],
        "least_abstention": value,
        "least_abstention_low": low,
        "least_abstention_high": high,
        "answered": answered.share,
        "answered_wrong": None if threshold is None else answered.wrong,
        "answered_from": threshold,
    }


def _too_few(n: int, alpha: Fraction, delta: float) -> str:
    return f"{n} calibration items cannot cover {1 - float(alpha):g} with probability {1 - delta:g}; {least_calibration(alpha, delta)} can"
