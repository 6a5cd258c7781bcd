"""Coverage and set size within subjects, labels and set sizes, under one threshold for all items.

A figure of a group is a ratio of two means over test items, so it is computed with the same exact law, drawn splits and influences as the
figures of the whole run.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from string import ascii_uppercase

import numpy as np

from analyzer.conformal.ranks import threshold_rank
from analyzer.conformal.set_size_interval import inverted_where_bent
from analyzer.conformal.split_law import SetStatistics, crossings, rank_law
from analyzer.conformal.split_moments import moments
from analyzer.conformal.tilted_items import Threshold
from analyzer.measure.cell import ESTIMATED, FACTS, MORE, Cell
from analyzer.measure.scored import ScoredRun, drawn_over, influence_of
from analyzer.runs.answer_metrics import answer_metrics
from analyzer.runs.view import RunView
from analyzer.stats.arrays import BoolArray, FloatArray, IntArray
from analyzer.stats.clusters import Clusters
from analyzer.stats.combined import ratio
from analyzer.stats.estimate import NOTHING, Estimate
from analyzer.stats.shrinkage import shrunken_shares

ENOUGH = 30  # groups with fewer items do not count for the worst group, because the smallest of many noisy shares is low by chance


def group_cells(scored: ScoredRun, alpha: Fraction, run_cell: Cell) -> Iterator[Cell]:
    """Yield the cell of the whole run with its worst group and coverage gap, then one cell per subject, label or set size (`by`)."""
    cells = list(_by_size(scored, alpha) if scored.question.by == "size" else _by_members(scored, alpha))
    yield replace(run_cell, facts={**run_cell.facts, **worst_group(cells)})
    yield from cells


def worst_group(cells: list[Cell]) -> dict[str, float | str]:
    """Return the group with the lowest coverage, and the mean distance of group coverage from 1 - alpha, over groups of at least 30 items.

    Both are corrected for noise, since the lowest of many shares is low by chance, and every share deviates by chance.
    """
    large = [cell for cell in cells if float(cell.facts["group_items"]) >= ENOUGH and math.isfinite(cell.estimates["coverage"].value)]
    if not large:
        return {"worst_group": "", "worst_group_coverage": np.nan, "coverage_gap": np.nan}
    coverages = [cell.estimates["coverage"] for cell in large]
    shares = shrunken_shares(np.clip([one.value for one in coverages], 0.0, 1.0), np.array([_binomial_items(one) for one in coverages]))
    worst = int(shares.argmin())
    gap = float(np.abs(shares - (1 - float(large[0].alpha))).mean())
    return {"worst_group": large[worst].group, "worst_group_coverage": float(shares[worst]), "coverage_gap": gap}


def _binomial_items(share: Estimate) -> float:
    """The number of independent items with which a plain share would have this error, at most the number that it rests on."""
    spread = share.value * (1 - share.value)
    return min(share.items, spread / share.error**2) if share.error > 0 and spread > 0 else share.items


def memberships(view: RunView, by: str) -> dict[str, BoolArray]:
    """Return by name which items, (item,) bool, belong to each subject, or to each label (the answer's letter)."""
    if by == "label":
        return {ascii_uppercase[label]: view.answer == label for label in np.unique(view.answer)}
    subject = view.items.subject[view.position]
    return {view.items.subjects[value] or "(none)": subject == value for value in np.unique(subject)}


def on_members(estimate: Estimate, member: BoolArray, clusters: Clusters | None) -> Estimate:
    """Return an estimate over the members, (item,) bool, as one over all items, with all their clusters; others have influence 0."""
    if not estimate.influence.size:
        return estimate
    influence = np.zeros(member.size)
    influence[member] = estimate.influence * (member.size / member.sum())
    return replace(estimate, influence=influence, clusters=clusters.among(member) if clusters else None)


def member_hits(statistics: SetStatistics, member: BoolArray) -> tuple[IntArray, FloatArray]:
    """Return hits (row, item) and steps (1 + statistic, row) of the share of members among tested items and of their statistics."""
    never = member.size + 1
    rows = np.vstack([np.where(member, 0, never)[None], np.where(member, statistics.table.rows, never)])
    return rows, np.vstack([np.eye(1, len(rows)), np.hstack([statistics.start[:, None], statistics.steps])])


def _by_members(scored: ScoredRun, alpha: Fraction) -> Iterator[Cell]:
    statistics, view = scored.statistics, scored.view
    for group, member in memberships(view, scored.question.by).items():
        rows, steps = member_hits(statistics, member)
        means = _ratios(scored, alpha, ("members", *statistics.names), rows, steps)
        estimates = {name: ratio(means[name], means["members"], member) for name in statistics.names}
        errors = None if scored.masks is None else np.array([estimates[name].error for name in statistics.names])
        law = rank_law(view.n_items, scored.n_calibration, threshold_rank(scored.n_calibration, alpha))
        estimates = inverted_where_bent(estimates, Threshold(law, scored.ranks), statistics, split_errors=errors, member=member)
        estimates["accuracy"] = on_members(answer_metrics(view)["accuracy"].among(member), member, view.clusters)
        yield _group_cell(scored, alpha, group, int(member.sum()), estimates)


def _by_size(scored: ScoredRun, alpha: Fraction) -> Iterator[Cell]:
    """Size-stratified coverage, Angelopoulos et al. 2021, arXiv:2009.14193: an item has size s from its s-th hit until its next one."""
    table, n_items = scored.statistics.table, scored.view.n_items
    answer, sizes = table.rows[0], table.rows[1:]
    ends = np.vstack([np.zeros((1, n_items), dtype=sizes.dtype), sizes, np.full((1, n_items), n_items + 1)])
    at_least = rank_law(n_items, scored.n_calibration, threshold_rank(scored.n_calibration, alpha)).at_least()
    for size in range(len(sizes) + 1):
        start, end = ends[size], ends[size + 1]
        rows = np.vstack([start, end, np.maximum(start, answer), np.maximum(end, answer)])
        steps = np.array([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])
        means = _ratios(scored, alpha, ("members", "coverage"), rows, steps)
        expected = means["members"].value * n_items
        constant = Estimate(float(size), np.zeros(n_items), clusters=scored.view.clusters) if expected > 0 else NOTHING
        chance = at_least[start] - at_least[end]
        estimates = {"coverage": ratio(means["coverage"], means["members"], chance), "set_size": constant}
        yield _group_cell(scored, alpha, str(size), round(float(expected)), estimates)


def _ratios(scored: ScoredRun, alpha: Fraction, names: tuple[str, ...], rows: IntArray, steps: FloatArray) -> dict[str, Estimate]:
    """Means over test items of steps @ hits, as estimates."""
    k = threshold_rank(scored.n_calibration, alpha)
    law = rank_law(scored.view.n_items, scored.n_calibration, k)
    zero = np.zeros(len(names))
    share, largest = tuple(name != "set_size" for name in names), scored.statistics.largest
    statistics = SetStatistics(crossings(rows, scored.ranks.item_rank), names, share, zero, steps, zero, steps, largest)
    means = moments(law, statistics).mean if scored.masks is None else drawn_over(statistics, scored, k).mean
    influence = influence_of(law, scored, statistics)
    return statistics.estimates(means, influence, scored.view.clusters)


def _group_cell(scored: ScoredRun, alpha: Fraction, group: str, items: int, estimates: dict[str, Estimate]) -> Cell:
    everything = dict.fromkeys((*ESTIMATED, *MORE), NOTHING) | estimates
    return Cell(scored.view, scored.scorer, alpha, scored.n_calibration, everything, group_facts(items), group=group)


def group_facts(items: int) -> dict[str, float | str]:
    """Return the facts of a group's cell: its number of items, and no spread over splits."""
    facts: dict[str, float | str] = {"group_items": items}
    return dict.fromkeys(FACTS, math.nan) | facts
