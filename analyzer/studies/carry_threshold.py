"""A threshold made on one run and used on another: exact over all splits where both runs answered the same items.

Ranking the target's scores among the source's calibration scores turns the question into the one that the split law answers. Items
that only the target answered are never calibrated on; then the law of the threshold's rank is all that is needed.
"""

from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from analyzer.conformal.influence import split_influence, threshold_pull
from analyzer.conformal.ranks import Ranks, rank_scores, threshold_rank
from analyzer.conformal.split_law import RankLaw, SetStatistics, crossings, moments, rank_law, set_statistics
from analyzer.conformal.splits import calibration_size
from analyzer.measure.cell import Cell
from analyzer.measure.groups import member_hits
from analyzer.measure.question import Question
from analyzer.measure.scored import scores_of
from analyzer.runs.view import RunView
from analyzer.stats.arrays import BoolArray, FloatArray
from analyzer.stats.estimate import Estimate, ratio
from schemas.errors import UsageError

CARRIED = ("coverage", "set_size")


def check_exact(question: Question, what: str) -> None:
    """Raise UsageError where the question draws splits, follows published rules or changes probs: `what` is exact over all splits."""
    asked = {
        f"--split {question.split.text}": not question.split.exact,
        f"--protocol {question.protocol}": question.protocol != "exact",
        "--stratify": question.stratify,
        f"--reliability {question.reliability}": question.reliability != "none",
        f"--mondrian {question.mondrian}": question.mondrian != "none",
        f"--by {question.by}": question.by != "none",
    }
    if wrong := [option for option, given in asked.items() if given]:
        raise UsageError(f"{what} is exact over all splits under one threshold, protocol exact; leave {' and '.join(wrong)} out")


def carry(source: RunView, target: RunView, asked: Cell, question: Question) -> Mapping[str, Estimate]:
    """Return coverage and set size of the target under the source's thresholds, over the same items in the same order.

    asked : a cell with the scorer and the alpha that are meant.
    Each split calibrates on the source's logits of n items and tests the target's logits of the others.
    """
    ranks = _carried_ranks(source, target, asked.scorer, question)
    law = split_law(source.n_items, asked.alpha, question)
    found = set_statistics(ranks)
    means, influence = moments(law, found).mean, split_influence(law, ranks.item_rank, found)
    places = {name: found.names.index(name) for name in CARRIED}
    return {name: Estimate(float(means[place]), influence[place], found.share[place]) for name, place in places.items()}


def carry_to_subject(
    source: RunView, target: RunView, chosen: BoolArray, asked: Cell, question: Question
) -> Mapping[str, Estimate]:
    """Return the same for the chosen, (item,) bool, of the target's items, under thresholds made on all items.

    A ratio of two means over tested items, as for groups: an item that calibrates is not tested under its own threshold.
    """
    ranks = _carried_ranks(source, target, asked.scorer, question)
    law = split_law(source.n_items, asked.alpha, question)
    whole = set_statistics(ranks)
    rows, steps = member_hits(whole, chosen)
    names, zero = ("members", *whole.names), np.zeros(len(steps))
    share = (True, *whole.share)
    found = SetStatistics(crossings(rows, ranks.item_rank), names, share, zero, steps, zero, steps)
    means, influence = moments(law, found).mean, split_influence(law, ranks.item_rank, found)
    estimates = {name: Estimate(float(means[i]), influence[i], share[i]) for i, name in enumerate(names)}
    return {name: ratio(estimates[name], estimates["members"]) for name in CARRIED}


def carry_apart(source: RunView, target: RunView, asked: Cell, question: Question) -> Mapping[str, Estimate]:
    """Return the same for a target of other items; influences run over the source's items and then the target's.

    The estimates rest on the items of the smaller set: the target's are averaged over, the source's make the threshold.
    """
    ranks = _carried_ranks(source, target, asked.scorer, question)
    law = split_law(source.n_items, asked.alpha, question)
    found = {}
    for name, (values, pull) in _expected(law, ranks).items():
        influence = joined(source.n_items, target.n_items, pull, values - values.mean())
        found[name] = Estimate(float(values.mean()), influence, name == "coverage", items=min(source.n_items, target.n_items))
    return found


def joined(n_source: int, n_target: int, of_source: FloatArray, of_target: FloatArray) -> FloatArray:
    """Return the influence over the items of two sets together, of an estimate to which each set contributes its part."""
    total = n_source + n_target
    return np.concatenate([of_source * (total / n_source), of_target * (total / n_target)])


def split_law(n_items: int, alpha: Fraction, question: Question) -> RankLaw:
    """Return the law of the threshold's rank for items that calibrate by the question's fraction."""
    n = calibration_size(n_items, question.calibration_fraction)
    return rank_law(n_items, n, threshold_rank(n, alpha))


def _carried_ranks(source: RunView, target: RunView, scorer: str, question: Question) -> Ranks:
    calibration = scores_of(source, source.probs, scorer, question)[np.arange(source.n_items), source.answer]
    scores = scores_of(target, target.probs, scorer, question)
    return rank_scores(scores, target.answer, target.probs, question.empty, calibration)


def _expected(law: RankLaw, ranks: Ranks) -> dict[str, tuple[FloatArray, FloatArray]]:
    """By name: (item,) expected value of each item over the law, and (source item,) influence through the threshold, mean zero."""
    at_least, window = law.at_least(), slice(law.first + 1, law.first + 1 + law.weights.size)
    found = {}
    for name, rows in (("coverage", ranks.answer[None]), ("set_size", ranks.option)):
        entering = np.bincount(rows.ravel(), minlength=law.n_items + 2)[window]
        pull = -threshold_pull(law, ranks.item_rank, entering[None].astype(np.float64))[0]
        found[name] = at_least[rows].sum(axis=0), (pull - pull.mean()) * (law.n_items / rows.shape[1])
    return found
