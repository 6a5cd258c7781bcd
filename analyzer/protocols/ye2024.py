"""ye2024: the published benchmark of Ye et al. (arXiv:2401.12794), reproduced to the last digit.

Its rules differ from `exact` in seven points, all of which are reproduced: items 1, 3, 5, 7, 9 are dropped; there is one split, that of
scikit-learn's train_test_split with random_state 42; softmax is computed in float32; the threshold is the (k+1)-th calibration score
whenever k < n, which is what np.quantile(.., method="higher") returns; LAC membership is `p >= 1 - q`; tied options are in the order of
its sort (avx_sort_order.py); empty sets get the most likely option.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer.conformal.influence import drawn_law, split_influence
from analyzer.conformal.ranks import Ranks, rank_scores, threshold_rank
from analyzer.conformal.set_size_interval import inverted_where_bent, no_interval
from analyzer.conformal.split_law import SetStatistics, rank_law, set_statistics
from analyzer.conformal.split_moments import moments
from analyzer.conformal.splits import Split, calibration_size
from analyzer.conformal.tilted_items import Threshold
from analyzer.measure.cell import FACTS, Cell, too_few, unmeasured, with_uacc
from analyzer.measure.question import Question
from analyzer.protocols.avx_sort_order import network_argsort
from analyzer.runs.answer_metrics import BENCHMARK_OPTIONS, IDK_INDEX, NONE_INDEX, answer_metrics
from analyzer.runs.view import RunView
from analyzer.stats.arrays import BoolArray, IntArray
from analyzer.stats.clusters import Clusters
from analyzer.stats.estimate import Estimate
from schemas.benchmark import ODD
from schemas.options import own_options

Float32Array = NDArray[np.float32]
DROPPED, SEED = tuple(map(int, ODD)), 42
DEFAULT = Question(alphas=(Fraction(1, 10),), split=Split(f"train_test_split:{SEED}"), empty="top1", protocol="ye2024")


class PublishedScores(NamedTuple):
    """Float32 probs and scores as the published code computes them, (item, option), and the option that an empty set gets, (item,)."""

    probs: Float32Array
    scores: Float32Array
    top: IntArray


class Replay(NamedTuple):
    """A run under one scorer, prepared once for all alphas: which items calibrate, (item,), and the exact protocol's statistics."""

    view: RunView
    scorer: str
    scored: PublishedScores
    calibrates: BoolArray
    ranks: Ranks
    statistics: SetStatistics


def choose(view: RunView) -> RunView:
    """Return all items except the five that the benchmark drops as demonstrations, the same five in every task."""
    return view.keep(~np.isin(view.position, DROPPED))


def measure(view: RunView, scorer: str, question: Question) -> Iterator[Cell]:
    """Yield one cell per alpha, with all figures computed over the test half."""
    if view.n_items < 2:
        yield from (unmeasured(view, scorer, alpha) for alpha in question.alphas)
        return
    replay = _replay(view, scorer)
    for alpha in question.alphas:
        yield _cell(replay, alpha)


def _replay(view: RunView, scorer: str) -> Replay:
    scored = SCORERS[scorer](_softmax32(view))
    scores = np.where(np.isnan(view.probs), np.nan, scored.scores).astype(np.float64)
    ranks = rank_scores(scores, view.answer, view.probs, "top1")
    return Replay(view, scorer, scored, _calibration_half(view.n_items), ranks, set_statistics(ranks))


def _cell(replay: Replay, alpha: Fraction) -> Cell:
    view, scorer, scored, calibrates = replay.view, replay.scorer, replay.scored, replay.calibrates
    n = int(calibrates.sum())
    k = _higher(n, threshold_rank(n, alpha))
    items = np.arange(view.n_items)
    of_answer = scored.scores[items, view.answer]
    threshold = np.float32(np.inf) if k > n else np.sort(of_answer[calibrates])[k - 1]
    sets = MEMBERSHIP[scorer](scored, threshold) & ~np.isnan(view.probs)
    sets[items, scored.top] |= ~sets.any(axis=1)
    size, covered = sets.sum(axis=1)[~calibrates], sets[items, view.answer][~calibrates]
    values = {"coverage": covered, "set_size": size, "empty_rate": size == 0, "singleton_rate": size == 1}
    estimates = _with_influence(replay, k, {name: float(v.mean()) for name, v in values.items()})
    chosen = scored.probs.argmax(axis=1)
    rates = {name: _tested_share(flag, ~calibrates, view.clusters) for name, flag in _rates(view, chosen).items()}
    estimates = answer_metrics(view) | estimates | rates
    return Cell(
        view,
        scorer,
        alpha,
        n,
        with_uacc(estimates, view),
        {**dict.fromkeys(FACTS, math.nan), "parameters": "", "set_size_note": no_interval(rank_law(view.n_items, n, k)) or math.nan},
        too_few(n, alpha) if k > n else None,
        forced=True,
    )


def _with_influence(replay: Replay, k: int, values: dict[str, float]) -> dict[str, Estimate]:
    """The published figures, with the influences of items under our own membership rule, which differs from theirs by rounding only."""
    statistics, item_rank = replay.statistics, replay.ranks.item_rank
    law = rank_law(item_rank.size, int(replay.calibrates.sum()), k)
    influence = split_influence(law, item_rank, statistics, drawn_law(item_rank, replay.calibrates[None], k))
    estimates = statistics.estimates([values[name] for name in statistics.names], influence, replay.view.clusters)
    return inverted_where_bent(estimates, Threshold(law, replay.ranks), statistics, split_errors=moments(law, statistics).sd)


def _rates(view: RunView, chosen: IntArray) -> dict[str, BoolArray]:
    rates = {"accuracy": chosen == view.answer}
    if (view.n_options == BENCHMARK_OPTIONS).all():
        rates |= {"idk_rate": chosen == IDK_INDEX, "none_of_above_rate": chosen == NONE_INDEX}
    return rates


def _tested_share(flag: BoolArray, tested: BoolArray, clusters: Clusters | None) -> Estimate:
    """Share over the test half only; items of the calibration half have no influence."""
    value = float(flag[tested].mean())
    influence = (flag - value) * tested * (tested.size / tested.sum())
    return Estimate(value, influence, share=True, items=int(tested.sum()), clusters=clusters.among(tested) if clusters else None)


def _higher(n: int, k: int) -> int:
    """Rank, 1-based, of np.quantile(scores, k / n, method="higher"): index ceil(k / n * (n - 1)) is k for k < n, and n - 1 for k = n."""
    return k + 1 if k < n else k


def _calibration_half(n_items: int) -> BoolArray:
    """True for the training half of sklearn.model_selection.train_test_split(train_size=0.5, random_state=42)."""
    n = calibration_size(n_items, Fraction(1, 2))
    order = np.random.RandomState(SEED).permutation(n_items)
    calibrates = np.zeros(n_items, dtype=np.bool_)
    calibrates[order[n_items - n :]] = True
    return calibrates


def _softmax32(view: RunView) -> Float32Array:
    logits = np.where(own_options(view.n_options, view.logits.shape[1]), view.logits, np.float32(-np.inf))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _lac(probs: Float32Array) -> PublishedScores:
    return PublishedScores(probs, np.float32(1) - probs, probs.argmax(axis=1))


def _aps(probs: Float32Array) -> PublishedScores:
    order = network_argsort(probs)[:, ::-1]
    scores = np.empty_like(probs)
    np.put_along_axis(scores, order, np.take_along_axis(probs, order, axis=1).cumsum(axis=1), axis=1)
    return PublishedScores(probs, scores, order[:, 0])


SCORERS = {"lac": _lac, "aps": _aps}


def _lac_sets(scored: PublishedScores, threshold: np.float32) -> BoolArray:
    return np.asarray(scored.probs >= np.float32(1) - threshold)


def _aps_sets(scored: PublishedScores, threshold: np.float32) -> BoolArray:
    return np.asarray(scored.scores <= threshold)


MEMBERSHIP = {"lac": _lac_sets, "aps": _aps_sets}
