"""Mondrian: a threshold of its own for every subject or label, so that coverage holds within each. Vovk, Gammerman & Shafer 2005, ch. 4.

Items are split within each group, so groups are independent and the exact split law holds in each of them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from analyzer.conformal.splits import ALL
from analyzer.measure.cell import ESTIMATED, MORE, Cell, uacc
from analyzer.measure.groups import group_facts, memberships, on_members, worst_group
from analyzer.measure.question import Question
from analyzer.measure.scored import calibration_masks, measure_alpha, score_run
from analyzer.runs.answer_metrics import answer_metrics
from analyzer.runs.view import RunView
from analyzer.stats.arrays import BoolArray, FloatArray
from analyzer.stats.estimate import NOTHING, Estimate


def subject_cells(view: RunView, scorer: str, question: Question) -> Iterator[Cell]:
    """Yield, for every alpha, the cell over all subjects and one cell per subject under its own threshold."""
    masks = None if question.split.exact else calibration_masks(view, replace(question, stratify=question.split.calibration_ids is None))
    members = memberships(view, "subject")
    cells: dict[str, dict[Fraction, Cell]] = {}
    for group, member in members.items():
        alone = _subject(view.keep(member), scorer, question, None if masks is None else masks[:, member])
        cells[group] = {alpha: _of_group(cell, view, member, group) for alpha, cell in alone.items()}
    for alpha in question.alphas:
        parts = [cells[group][alpha] for group in members]
        yield together(view, parts)
        yield from parts


def together(view: RunView, parts: Sequence[Cell]) -> Cell:
    """Return the cell over all groups: their means weighted by tested items, their independent spreads added."""
    usable = [part for part in parts if part.n_calibration]
    tested = np.array([float(part.facts["group_items"]) - part.n_calibration for part in usable])
    weight = tested / tested.sum() if usable else tested
    names = [name for name in ESTIMATED if name not in ("accuracy", "uacc") and usable and _all_known(name, usable)]
    estimates = dict.fromkeys((*ESTIMATED, *MORE), NOTHING) | answer_metrics(view)
    estimates |= {name: _weighted([part.estimates[name] for part in usable], weight) for name in names}
    estimates["uacc"] = uacc(estimates["accuracy"], estimates["set_size"], view)
    spreads = {f"{name}_sd": _spread([part.facts[f"{name}_sd"] for part in usable], weight) for name in ("coverage", "set_size")}
    small = [part.group for part in parts if part.note]
    note = f"groups too small for alpha {float(parts[0].alpha):g}, whose sets are full: {', '.join(small)}" if small else None
    facts: dict[str, float | str] = {**parts[0].facts, **spreads, "group_items": view.n_items, **worst_group(list(parts))}
    n = sum(part.n_calibration for part in parts)
    return replace(parts[0], view=view, n_calibration=n, estimates=estimates, facts=facts, note=note, group="all")


def _all_known(name: str, parts: Sequence[Cell]) -> bool:
    return all(part.estimates[name].influence.size for part in parts)


def _subject(part: RunView, scorer: str, question: Question, masks: BoolArray | None) -> dict[Fraction, Cell]:
    """One subject's cell at every alpha, under its own threshold; masks (split, item) over its items, None for all splits."""
    n = int(part.n_items * question.calibration_fraction) if masks is None else int(masks[0].sum())
    if not 0 < n < part.n_items:
        estimates = dict.fromkeys((*ESTIMATED, *MORE), NOTHING)
        note = f"{part.n_items} items cannot be split"
        return {alpha: Cell(part, scorer, alpha, 0, estimates, group_facts(part.n_items), note) for alpha in question.alphas}
    plain = replace(question, mondrian="none", split=ALL if masks is None else question.split)
    scored = score_run(part, part.probs, scorer, plain, masks)
    return {alpha: measure_alpha(scored, alpha) for alpha in question.alphas}


def _of_group(cell: Cell, view: RunView, member: BoolArray, group: str) -> Cell:
    """The cell of some members, (item,) bool, as one group of the whole run."""
    estimates = {name: on_members(estimate, member) for name, estimate in cell.estimates.items()}
    return replace(cell, view=view, estimates=estimates, group=group, facts={**cell.facts, "group_items": int(member.sum())})


def _weighted(estimates: Sequence[Estimate], weight: FloatArray) -> Estimate:
    value = float(sum(w * e.value for w, e in zip(weight, estimates, strict=True)))
    influence = np.sum([w * e.influence for w, e in zip(weight, estimates, strict=True)], axis=0)
    return Estimate(value, influence, estimates[0].share)


def _spread(values: Sequence[float | str], weight: FloatArray) -> float:
    return math.sqrt(sum((w * float(v)) ** 2 for w, v in zip(weight, values, strict=True)))
