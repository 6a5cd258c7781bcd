"""The figure behind a check of the gate, with bounds that hold for few items, rare damage and heavy tails.

Every figure is a mean of the items' contributions. The smallest and the largest contribution that an item can make are known, and the
bounds allow for unseen items that make it (`analyzer.stats.mean_bounds`): if none of 200 items flips, up to 1.8 % may still flip, whatever
spread they show. Shares get the exact binomial limits. For figures of prediction sets an item also moves the threshold, by at most a known
amount. If the figure is far from linear in the level of the threshold, at an atom or a gap of the scores, nothing is decided.

Where items form clusters, every cluster makes one contribution, and the largest that it can make is that of all its items. The sizes of the
clusters are known, and so is how much damage can stay unseen in all of them together (`analyzer.stats.clusters.unseen_size`).
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import numpy as np

from analyzer.compare.paired import Paired
from analyzer.conformal.ranks import threshold_rank
from analyzer.conformal.set_size_interval import jumps_at_threshold
from analyzer.conformal.split_law import RankLaw, rank_law
from analyzer.conformal.tilted_items import Threshold, threshold_design_effect
from analyzer.measure.question import Question
from analyzer.measure.scored import ranks_of
from analyzer.runs.clustering import QUESTION
from analyzer.runs.view import RunView
from analyzer.stats.arrays import BoolArray, FloatArray
from analyzer.stats.clusters import cluster_influence, effective_items, unseen_size
from analyzer.stats.estimate import Estimate
from analyzer.stats.mean_bounds import mean_upper_bound
from analyzer.studies.carry_threshold import carried_ranks
from analyzer.studies.threshold_transfer import carried_coverage

FEW_ITEMS = 10  # smallest number of effective items, and of calibration items expected above the threshold
AT_AN_ATOM = "the threshold lies where many questions have the same score or none has one near it, so a few questions would move it far"
GROUPS, EXTREMES = 384, 128
SMALLEST_TAIL = 1e-9  # below it nothing is excluded; an early look may have a tail of 1e-23, where the bounds' formulas lose their digits
DIGITS = 12  # decimals of a contribution; equal ones differ beyond them by rounding


@dataclass(frozen=True)
class Bounded:
    """A figure and the data for its bounds.

    least, most : smallest and largest contribution of a single item (for a plain mean, its value); infinite if unknown.
    undecided   : why nothing may be concluded, whatever the bounds say.
    open_end    : why the bounds may be too wide to decide.
    fewest      : number of items needed to decide anything; infinite if no number is known to be enough.
    """

    estimate: Estimate
    least: float
    most: float
    undecided: str | None = None
    open_end: str | None = None
    fewest: float = 0.0

    def low(self, tail: float) -> float:
        """Return a bound that the true figure is below with at most this probability; NaN without a figure.

        If an item's smallest contribution is unknown or the probability is next to 0, this is the figure's own smallest value.
        """
        if not self.contributions.size:
            return math.nan
        if not math.isfinite(self.least) or tail < SMALLEST_TAIL:
            return self.estimate.least
        least = min(self.of_unit(self.least, tail), float(self.contributions.min()))
        return max(self.estimate.least, -mean_upper_bound(-self.contributions, -least, tail))

    def high(self, tail: float) -> float:
        """Return a bound that the true figure is above with at most this probability; NaN without a figure.

        If an item's largest contribution is unknown or the probability is next to 0, this is the figure's own largest value.
        """
        if not self.contributions.size:
            return math.nan
        if not math.isfinite(self.most) or tail < SMALLEST_TAIL:
            return self.estimate.most
        most = max(self.of_unit(self.most, tail), float(self.contributions.max()))
        return min(self.estimate.most, mean_upper_bound(self.contributions, most, tail))

    def of_unit(self, of_item: float, tail: float) -> float:
        """Return the extreme contribution of an unseen unit from that of an item: of a cluster, or of an item that is by itself."""
        clusters = self.estimate.clusters
        if not clusters:
            return of_item
        sizes = np.bincount(clusters.code)
        relative_size = unseen_size(sizes[sizes > 0], tail) * np.count_nonzero(sizes) / clusters.code.size
        return round(self.estimate.value + (of_item - self.estimate.value) * relative_size, DIGITS)

    @cached_property
    def contributions(self) -> FloatArray:
        """Contribution of each item or cluster; their mean is the figure. If very many values differ, neighbours get their mean."""
        if not math.isfinite(self.estimate.value):
            return np.empty(0)
        influence, clusters = self.estimate.influence, self.estimate.clusters
        if clusters:
            influence = cluster_influence(influence, np.unique(clusters.code, return_inverse=True)[1])
        values = np.round(self.estimate.value + influence, DIGITS)
        return _grouped(values) if np.unique(values).size > GROUPS + 2 * EXTREMES else values


def of_items(estimate: Estimate, least: float, most: float) -> Bounded:
    """Return a mean of values in [least, most] with its bounds; if only some items enter the mean, each of them contributes more."""
    weight = estimate.influence.size / estimate.items if estimate.items > 0 else 1.0
    least, most = (estimate.value + (end - estimate.value) * weight for end in (least, most))
    return Bounded(estimate, least, most)


def too_few_clusters(estimate: Estimate) -> str | None:
    """Return why an estimate over a few large clusters decides nothing; None if it has enough of them, or if they are small."""
    if not estimate.clusters or estimate.units >= FEW_ITEMS or estimate.items <= 2 * estimate.units:
        return None
    n_clusters = estimate.clusters.count
    of_like_size = "" if n_clusters < FEW_ITEMS else f" of very different sizes, worth {estimate.units:.1f} equal ones"
    return f"the figure rests on {n_clusters} cluster{'s' if n_clusters > 1 else ''}{of_like_size}; at least {FEW_ITEMS} are needed"


def at_worst(bounded: Bounded, worst: float, name: str) -> Bounded:
    """Return the bounds of a figure that has no largest value, using the worst value of an item that the policy states."""
    largest = float(bounded.contributions.max(initial=-math.inf))
    if largest > worst:
        return replace(bounded, open_end=f"an item has {name} {largest:.3g}, above the stated worst value {worst:g} (worst_value.{name})")
    return replace(bounded, most=worst)


def set_size_growth(cell: Paired, question: Question) -> Bounded:
    """Return the change of the mean set size with bounds for an item that gets every option and moves the threshold most."""
    change = cell.changes["set_size_change"]
    if cell.pair is None or not change.influence.size:
        return Bounded(change, -math.inf, math.inf, cell.after.note)
    dense, compressed = (_threshold(view, view, cell, question) for view in cell.pair)
    alpha, widest = float(cell.after.alpha), float(cell.pair.dense.n_options.max())
    most = widest + (1 - alpha) * compressed.pull + alpha * dense.pull
    least = -(widest + (1 - alpha) * dense.pull + alpha * compressed.pull)
    alike = max(threshold_design_effect(at, change.clusters) for at in (dense.at, compressed.at))
    undecided = cell.after.note or _too_few_above(dense.at.law, cell.after.alpha, alike)
    if not undecided and (jumps_at_threshold(dense.at, alike) or jumps_at_threshold(compressed.at, alike)):
        undecided = AT_AN_ATOM
    return Bounded(change, least, most, undecided, _few_effective(change, question), _fewest(undecided, cell, question))


def coverage_after_transfer(cell: Paired, question: Question, chosen: BoolArray | None = None) -> Bounded:
    """Return the coverage under the dense run's thresholds with its bounds, over all items or those chosen, (item,) bool."""
    estimate = carried_coverage(cell, question, chosen)
    if cell.pair is None or not estimate.influence.size:
        return Bounded(estimate, -math.inf, math.inf, cell.after.note)
    source = _threshold(*cell.pair, cell, question)
    alpha, weight = float(cell.after.alpha), estimate.influence.size / max(estimate.items, 1)
    least = estimate.value * (1 - weight) - alpha * source.pull
    most = estimate.value * (1 - weight) + weight + (1 - alpha) * source.pull
    alike = threshold_design_effect(source.at, estimate.clusters)
    undecided = cell.after.note or _too_few_above(source.at.law, cell.after.alpha, alike)
    if not undecided and jumps_at_threshold(Threshold(source.at.law, replace(source.at.ranks, option=source.at.ranks.answer[None])), alike):
        undecided = AT_AN_ATOM
    return Bounded(estimate, least, most, undecided, _few_effective(estimate, question), _fewest(undecided, cell, question))


class _Pulled(NamedTuple):
    """The law of a run's threshold. `pull` is how much the figure changes when one calibration item crosses the threshold."""

    at: Threshold
    pull: float


def _threshold(source: RunView, target: RunView, cell: Paired, question: Question) -> _Pulled:
    """Return the law of the source's threshold among the target's scores; the figure is set size for one run, coverage for two."""
    scorer, alpha, n = cell.after.scorer, cell.after.alpha, cell.after.n_calibration
    ranks = ranks_of(source, scorer, question) if source is target else carried_ranks(source, target, scorer, question)
    law = rank_law(ranks.n_items, n, threshold_rank(n, alpha))
    rows = ranks.option if source is target else ranks.answer[None]
    entering = np.bincount(rows.ravel(), minlength=law.n_items + 2)[law.first + 1 : law.first + 1 + law.weights.size]
    return _Pulled(Threshold(law, ranks), float(law.weights[: entering.size] @ entering))


def _grouped(values: FloatArray) -> FloatArray:
    """Return the values in rising order: extremes are kept, the others become the means of groups, which hardly changes the bounds."""
    rising = np.sort(values)
    middle = rising[EXTREMES:-EXTREMES]
    starts = np.linspace(0, middle.size, GROUPS + 1).astype(np.int64)
    sizes = np.diff(starts)
    means = np.add.reduceat(middle, starts[:-1]) / sizes
    return np.concatenate([rising[:EXTREMES], np.repeat(means, sizes), rising[-EXTREMES:]])


def _too_few_above(law: RankLaw, alpha: Fraction, alike: float) -> str | None:
    above = (law.n_calibration + 1 - law.k) / alike
    if above >= FEW_ITEMS:
        return None
    items = f"{'' if alike == 1 else 'independent '}calibration items"
    return f"{above:.0f} {items} are expected above the threshold at alpha {float(alpha):g}; at least {FEW_ITEMS} are needed"


def _fewest(undecided: str | None, cell: Paired, question: Question) -> float:
    """Return how many items put enough calibration items above the threshold; infinite at an atom, which more items do not remove."""
    if undecided == AT_AN_ATOM:
        return math.inf
    return float(math.ceil(FEW_ITEMS / cell.after.alpha / question.calibration_fraction))


def _few_effective(estimate: Estimate, question: Question) -> str | None:
    effective = effective_items(estimate.clusters.sums(estimate.influence) if estimate.clusters else estimate.influence)
    if not 0 < effective < FEW_ITEMS:
        return None
    of_questions = question.clustering.text == QUESTION or not estimate.clusters
    unit = f"{'different question' if of_questions else 'cluster'}{'s' if effective >= 1.5 else ''}"
    return f"nearly all of the change comes from about {effective:.0f} {unit}; at least {FEW_ITEMS} are needed"
