"""Mondrian: a separate threshold for every subject or label, so that coverage holds within each. Vovk, Gammerman & Shafer 2005, ch. 4.

Items are split within each group, so groups are independent and the exact split law holds in each of them.

Subjects are the simple case: each is measured like a separate run. With a threshold per label, option j is compared with the scores of
items whose answer is j, so that an item's set depends on as many thresholds as it has options. The mean set size is then a sum over labels;
only its spread over splits has no short formula and is null. A label that is never the answer is in every set.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from string import ascii_uppercase
from typing import NamedTuple

import numpy as np

from analyzer.conformal.influence import threshold_pull
from analyzer.conformal.ranks import Ranks, rank_scores, threshold_rank
from analyzer.conformal.split_law import RankLaw, rank_law, set_statistics
from analyzer.conformal.split_moments import Moments, moments
from analyzer.conformal.splits import ALL
from analyzer.measure.cell import ESTIMATED, MORE, Cell, too_few, with_uacc
from analyzer.measure.groups import group_facts, memberships, on_members, worst_group
from analyzer.measure.question import Question
from analyzer.measure.scored import calibration_masks, measure_alpha, parameter_text, score_run, scores_of
from analyzer.runs.answer_metrics import answer_metrics
from analyzer.runs.view import RunView
from analyzer.stats.arrays import BoolArray, FloatArray, IntArray
from analyzer.stats.clusters import Clusters
from analyzer.stats.estimate import NOTHING, Estimate
from schemas.errors import UsageError


def subject_cells(view: RunView, scorer: str, question: Question) -> Iterator[Cell]:
    """Yield for every alpha the cell over all subjects, then one cell per subject under its own threshold."""
    masks = None if question.split.exact else calibration_masks(view, replace(question, stratify=question.split.calibration_ids is None))
    members = memberships(view, "subject")
    cells: dict[str, dict[Fraction, Cell]] = {}
    for group, member in members.items():
        alone = _subject(view.keep(member), scorer, question, None if masks is None else masks[:, member])
        cells[group] = {alpha: _of_subject(cell, view, member, group) for alpha, cell in alone.items()}
    for alpha in question.alphas:
        group_cells = [cells[group][alpha] for group in members]
        yield _together(view, question, group_cells)
        yield from group_cells


def label_cells(view: RunView, scorer: str, question: Question) -> Iterator[Cell]:
    """Yield for every alpha the cell over all labels, then one cell per label.

    Raises UsageError for drawn splits and for --empty top1, for which the exact law does not hold.
    """
    if not question.split.exact or question.empty != "keep":
        raise UsageError("thresholds per label are measured over all splits with empty sets kept; leave --split and --empty out")
    scores, parameters = scores_of(view, view.probs, scorer, question), parameter_text(scorer, question)
    for alpha in question.alphas:
        labels = [_label(view, scores, option, question.calibration_fraction, alpha) for option in range(scores.shape[1])]
        group_cells = [_of_label(view, scorer, alpha, labels, ascii_uppercase.index(name)) for name in memberships(view, "label")]
        group_cells = [replace(cell, facts={**cell.facts, "parameters": parameters}) for cell in group_cells]
        yield _together(view, question, group_cells)
        yield from group_cells


def _together(view: RunView, question: Question, group_cells: Sequence[Cell]) -> Cell:
    """The cell over all groups: the means of groups weighted by their tested items, and their independent spreads combined.

    Facts about a single threshold (its ties, quantiles of coverage) are only given for the groups.
    """
    usable = [cell for cell in group_cells if cell.n_calibration]
    tested = np.array([float(cell.facts["group_items"]) - cell.n_calibration for cell in usable])
    weight = tested / tested.sum() if usable else tested
    names = [name for name in ESTIMATED if name not in ("accuracy", "uacc") and usable and _estimated_in_all(name, usable)]
    estimates = dict.fromkeys((*ESTIMATED, *MORE), NOTHING) | answer_metrics(view)
    estimates |= {name: _weighted([cell.estimates[name] for cell in usable], weight) for name in names}
    estimates = with_uacc(estimates, view)
    spreads = {f"{name}_sd": _spread([cell.facts[f"{name}_sd"] for cell in usable], weight) for name in ("coverage", "set_size")}
    small = [cell.group for cell in group_cells if threshold_rank(cell.n_calibration, cell.alpha) > cell.n_calibration]
    note = f"groups too small for alpha {float(group_cells[0].alpha):g}, whose sets are full: {', '.join(small)}" if small else None
    parameters = parameter_text(group_cells[0].scorer, question)
    facts = {**group_facts(view.n_items), **spreads, "parameters": parameters, **worst_group(list(group_cells))}
    n = sum(cell.n_calibration for cell in group_cells)
    return replace(group_cells[0], view=view, n_calibration=n, estimates=estimates, facts=facts, note=note, group="all")


def _estimated_in_all(name: str, group_cells: Sequence[Cell]) -> bool:
    return all(cell.estimates[name].influence.size for cell in group_cells)


def _weighted(estimates: Sequence[Estimate], weight: FloatArray) -> Estimate:
    value = float(sum(w * e.value for w, e in zip(weight, estimates, strict=True)))
    influence = np.sum([w * e.influence for w, e in zip(weight, estimates, strict=True)], axis=0)
    kish = 1 / float(sum(w * w / e.items for w, e in zip(weight, estimates, strict=True)))
    first = estimates[0]
    clusters = None
    if first.clusters:
        shares = [w * e.clusters.share for w, e in zip(weight, estimates, strict=True) if e.clusters]
        clusters = Clusters(first.clusters.code, np.sum(shares, axis=0))
    return Estimate(value, influence, first.share, items=kish, least=first.least, most=first.most, clusters=clusters)


def _spread(values: Sequence[float | str], weight: FloatArray) -> float:
    return math.sqrt(sum((w * float(v)) ** 2 for w, v in zip(weight, values, strict=True)))


def _subject(view: RunView, scorer: str, question: Question, masks: BoolArray | None) -> dict[Fraction, Cell]:
    """One subject's cell at every alpha, under its own threshold; masks (split, item) over its items, None for all splits."""
    n = int(view.n_items * question.calibration_fraction) if masks is None else int(masks[0].sum())
    if not 0 < n < view.n_items:
        estimates = dict.fromkeys((*ESTIMATED, *MORE), NOTHING)
        note = f"{view.n_items} items cannot be split"
        return {alpha: Cell(view, scorer, alpha, 0, estimates, group_facts(view.n_items), note) for alpha in question.alphas}
    plain = replace(question, mondrian="none", split=ALL if masks is None else question.split)
    scored = score_run(view, view.probs, scorer, plain, masks)
    return {alpha: measure_alpha(scored, alpha) for alpha in question.alphas}


def _of_subject(cell: Cell, view: RunView, member: BoolArray, group: str) -> Cell:
    """The cell of one group, member (item,) bool, as part of the whole run."""
    estimates = {name: on_members(estimate, member, view.clusters) for name, estimate in cell.estimates.items()}
    return replace(cell, view=view, estimates=estimates, group=group, facts={**cell.facts, "group_items": int(member.sum())})


class Label(NamedTuple):
    """The calibration of one label.

    member : (item,) bool, items whose answer is this label.
    n      : number of calibration items among them.
    chance : (item,) probability over all splits that this option is in the item's set.
    rank   : (item,) rank of this option's score among the members' scores.
    """

    member: BoolArray
    n: int
    chance: FloatArray
    rank: IntArray | None = None
    item_rank: IntArray | None = None
    law: RankLaw | None = None
    coverage: Moments | None = None


def _label(view: RunView, scores: FloatArray, option: int, fraction: Fraction, alpha: Fraction) -> Label:
    member = view.answer == option
    exists = option < view.n_options
    n_members = int(member.sum())
    n = int(n_members * fraction)
    if not 0 < n < n_members:
        return Label(member, 0, exists.astype(np.float64))
    column = slice(option, option + 1)
    ranks = rank_scores(scores[:, column], np.zeros(view.n_items, dtype=np.int64), scores[:, column], calibration=scores[member, option])
    law = rank_law(n_members, n, threshold_rank(n, alpha))
    rank = ranks.option[0]
    among = set_statistics(Ranks(ranks.item_rank, rank[member][None], rank[member], ranks.rising, ranks.first))
    return Label(member, n, law.at_least()[rank], rank, ranks.item_rank, law, moments(law, among))


def _of_label(view: RunView, scorer: str, alpha: Fraction, labels: list[Label], option: int) -> Cell:
    label = labels[option]
    items = int(label.member.sum())
    expected = np.sum([other.chance[label.member] for other in labels], axis=0)
    covered = label.chance[label.member]
    clusters = view.clusters.among(label.member) if view.clusters else None
    exact = 1.0 if label.coverage is None else float(label.coverage.mean[0])
    sd = math.nan if label.coverage is None else float(label.coverage.sd[0])
    estimates = dict.fromkeys((*ESTIMATED, *MORE), NOTHING)
    estimates["accuracy"] = on_members(answer_metrics(view)["accuracy"].among(label.member), label.member, view.clusters)
    estimates["coverage"] = Estimate(exact, _influence(label.member, covered, [label]), share=True, items=items, clusters=clusters)
    size, largest = float((expected - covered).mean()) + exact, float(len(labels))
    estimates["set_size"] = Estimate(
        size, _influence(label.member, expected, labels), items=items, least=0.0, most=largest, clusters=clusters
    )
    facts = group_facts(items) | {"coverage_sd": sd}
    note = too_few(label.n, alpha) if label.law is None or label.law.first == items else None
    return Cell(view, scorer, alpha, label.n, estimates, facts, note, ascii_uppercase[option])


def _influence(member: BoolArray, expected: FloatArray, judged_by: list[Label]) -> FloatArray:
    """Influence, (item,), on the mean over members: the members' own sets, and the effect of every label's calibration items on them."""
    influence = np.zeros(member.size)
    influence[member] = expected - expected.mean()
    for label in judged_by:
        if label.law is None or label.rank is None or label.item_rank is None:
            continue
        entering = np.bincount(label.rank[member], minlength=label.item_rank.size + 2)
        jumps = entering[label.law.first + 1 : label.law.first + 1 + label.law.weights.size].astype(np.float64)
        pull = threshold_pull(label.law, label.item_rank, jumps[None])[0]
        influence[label.member] -= pull - pull.mean()
    return np.asarray(influence * (member.size / member.sum()))
