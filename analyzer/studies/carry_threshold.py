"""Coverage and set size of one run (the target) with the threshold of another (the source), exact over all calibration splits.

Each of the target's scores is ranked among the source's calibration scores; with these ranks the exact split law applies. Items that
only the target answered never calibrate, so for them the law of the threshold's rank is all that is needed.
"""

from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from analyzer.conformal.influence import split_influence, threshold_pull
from analyzer.conformal.ranks import Ranks, rank_scores, threshold_rank
from analyzer.conformal.set_size_interval import inverted_where_bent
from analyzer.conformal.split_law import RankLaw, SetStatistics, crossings, rank_law, set_statistics
from analyzer.conformal.split_moments import moments
from analyzer.conformal.splits import calibration_size
from analyzer.conformal.tilted_items import Threshold
from analyzer.measure.cell import Cell
from analyzer.measure.groups import member_hits
from analyzer.measure.question import Question
from analyzer.measure.scored import ranks_of, scores_of
from analyzer.runs.view import RunView
from analyzer.stats.arrays import BoolArray, FloatArray
from analyzer.stats.clusters import Clusters, clusters_of
from analyzer.stats.combined import ratio
from analyzer.stats.estimate import Estimate
from schemas.errors import UsageError

CARRIED = ("coverage", "set_size")


def check_exact(question: Question, what: str) -> None:
    """Raise UsageError unless the question is about all splits under one threshold and protocol `exact`; `what` names what needs that."""
    asked = {
        f"--split {question.split.text}": not question.split.exact,
        f"--protocol {question.protocol}": question.protocol != "exact",
        "--stratify": question.stratify,
        f"--reliability {question.reliability}": question.reliability != "none",
        f"--mondrian {question.mondrian}": question.mondrian != "none",
        f"--by {question.by}": question.by != "none",
    }
    if wrong := [option for option, is_set in asked.items() if is_set]:
        raise UsageError(f"{what} is exact over all splits under one threshold, protocol exact; leave {' and '.join(wrong)} out")


def carry(source: RunView, target: RunView, cell: Cell, question: Question) -> Mapping[str, Estimate]:
    """Return coverage and set size of the target with the source's thresholds; both runs answered the same items in the same order.

    cell : gives scorer and alpha.
    Each split calibrates on the source's logits of n items and tests the target's logits of the others.
    """
    ranks = carried_ranks(source, target, cell.scorer, question)
    law = split_law(source.n_items, cell.alpha, question)
    statistics = set_statistics(ranks)
    means, influence = moments(law, statistics).mean, split_influence(law, ranks.item_rank, statistics)
    estimates = inverted_where_bent(statistics.estimates(means, influence, target.clusters), Threshold(law, ranks), statistics)
    return {name: estimates[name] for name in CARRIED}


def carry_to_subject(source: RunView, target: RunView, chosen: BoolArray, cell: Cell, question: Question) -> Mapping[str, Estimate]:
    """Return coverage and set size of some of the target's items, chosen (item,) bool, with thresholds made on all items.

    Each is a ratio of two means over tested items, as for groups: an item that calibrates is not tested under its own threshold.
    """
    ranks = carried_ranks(source, target, cell.scorer, question)
    law = split_law(source.n_items, cell.alpha, question)
    statistics = set_statistics(ranks)
    rows, steps = member_hits(statistics, chosen)
    names, zero = ("members", *statistics.names), np.zeros(len(steps))
    share = (True, *statistics.share)
    of_subject = SetStatistics(crossings(rows, ranks.item_rank), names, share, zero, steps, zero, steps, statistics.largest)
    means, influence = moments(law, of_subject).mean, split_influence(law, ranks.item_rank, of_subject)
    estimates = of_subject.estimates(means, influence, target.clusters)
    ratios = {name: ratio(estimates[name], estimates["members"], chosen) for name in statistics.names}
    ratios = inverted_where_bent(ratios, Threshold(law, ranks), statistics, member=chosen)
    return {name: ratios[name] for name in CARRIED}


def carry_apart(source: RunView, target: RunView, cell: Cell, question: Question) -> Mapping[str, Estimate]:
    """Return coverage and set size of a target that answered other items; influences run over the source's items, then the target's.

    An estimate counts as many items as the smaller of the two sets has: the source's items make the threshold, the target's are averaged.
    """
    ranks = carried_ranks(source, target, cell.scorer, question)
    law = split_law(source.n_items, cell.alpha, question)
    figures, clusters = {}, joined_clusters(source, target)
    for name, (values, pull) in _expected(law, ranks).items():
        influence = joined(source.n_items, target.n_items, pull, values - values.mean())
        most, items = float(ranks.option.shape[0]), min(source.n_items, target.n_items)
        figures[name] = Estimate(float(values.mean()), influence, name == "coverage", items=items, least=0.0, most=most, clusters=clusters)
    return figures


def joined(n_source: int, n_target: int, of_source: FloatArray, of_target: FloatArray) -> FloatArray:
    """Return the influence over two item sets together of an estimate to which each set contributes a part."""
    total = n_source + n_target
    return np.concatenate([of_source * (total / n_source), of_target * (total / n_target)])


def joined_clusters(source: RunView, target: RunView) -> Clusters | None:
    """Return the clusters of two item sets together; a figure rests on the set with fewer of them. None if neither has any.

    Parts of one item set may share clusters; items of different sets do not.
    """
    if not (source.clusters or target.clusters):
        return None
    codes, starts = [view.cluster_of_set[view.position] for view in (source, target)], [0, 0]
    if source.items is not target.items:
        starts[1] = int(source.cluster_of_set.max()) + 1
    code = np.concatenate([code_of_view + start for code_of_view, start in zip(codes, starts, strict=True)])
    of_target = np.repeat([False, True], [source.n_items, target.n_items])
    sides = [clusters_of(code, int(code.max()) + 1, side) for side in (~of_target, of_target)]
    return min(sides, key=lambda side: side.units)


def split_law(n_items: int, alpha: Fraction, question: Question) -> RankLaw:
    """Return the distribution of the threshold's rank if the question's fraction of the items calibrates."""
    n = calibration_size(n_items, question.calibration_fraction)
    return rank_law(n_items, n, threshold_rank(n, alpha))


def carried_ranks(source: RunView, target: RunView, scorer: str, question: Question) -> Ranks:
    """Return the ranks of the target's scores, (option, item), among the scores of the source's answers."""
    of_source = ranks_of(source, scorer, question)
    calibration = of_source.rising[of_source.item_rank]
    scores = scores_of(target, target.probs, scorer, question)
    return rank_scores(scores, target.answer, target.probs, question.empty, calibration)


def _expected(law: RankLaw, ranks: Ranks) -> dict[str, tuple[FloatArray, FloatArray]]:
    """By name: (item,) each item's expected value over all splits, and (source item,) influence through the threshold, mean zero."""
    at_least, window = law.at_least(), slice(law.first + 1, law.first + 1 + law.weights.size)
    expected = {}
    for name, rows in (("coverage", ranks.answer[None]), ("set_size", ranks.option)):
        entering = np.bincount(rows.ravel(), minlength=law.n_items + 2)[window]
        pull = -threshold_pull(law, ranks.item_rank, entering[None].astype(np.float64))[0]
        expected[name] = at_least[rows].sum(axis=0), (pull - pull.mean()) * (law.n_items / rows.shape[1])
    return expected
