"""Mondrian: a threshold of its own for every subject or label, so that coverage holds within each. Vovk, Gammerman & Shafer 2005, ch. 4.

Items are split within each group, so groups are independent and the exact split law holds in each of them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from analyzer.conformal.splits import ALL
from analyzer.measure.cell import ESTIMATED, MORE, Measured, uacc
from analyzer.measure.groups import group_facts, memberships, on_members, worst_group
from analyzer.measure.question import Question
from analyzer.measure.scored import calibration_masks, cell, score_run
from analyzer.runs.answer_metrics import answer_metrics
from analyzer.runs.view import RunView
from analyzer.stats.arrays import BoolArray, FloatArray
from analyzer.stats.estimate import NOTHING, Estimate


class Asked(NamedTuple):
    """A run under one scorer and question; probs (item, option)."""

    view: RunView
    probs: FloatArray
    scorer: str
    question: Question


def subject_cells(view: RunView, probs: FloatArray, scorer: str, question: Question) -> Iterator[Measured]:
    """Yield, for every alpha, the cell over all subjects and one cell per subject under its own threshold."""
    masks = None if question.split.exact else calibration_masks(view, replace(question, stratify=question.split.calibration_ids is None))
    members = memberships(view, "subject")
    cells = {group: _subject(Asked(view, probs, scorer, question), group, member, masks) for group, member in members.items()}
    for place in range(len(question.alphas)):
        parts = [cells[group][place] for group in members]
        yield together(view, parts)
        yield from parts


def together(view: RunView, parts: Sequence[Measured]) -> Measured:
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


def _all_known(name: str, parts: Sequence[Measured]) -> bool:
    return all(part.estimates[name].influence.size for part in parts)


def _subject(asked: Asked, group: str, member: BoolArray, masks: BoolArray | None) -> list[Measured]:
    view, question = asked.view, asked.question
    part, own = view.keep(member), None if masks is None else masks[:, member]
    n = int(member.sum() * question.calibration_fraction) if own is None else int(own[0].sum())
    if not 0 < n < part.n_items:
        return [_too_small(asked, alpha, group, part.n_items) for alpha in question.alphas]
    plain = replace(question, mondrian="none", split=ALL if own is None else question.split)
    scored = score_run(part, asked.probs[member], asked.scorer, plain, own)
    return [_of_group(view, member, cell(scored, place), group) for place in range(len(question.alphas))]


def _of_group(view: RunView, member: BoolArray, found: Measured, group: str) -> Measured:
    estimates = {name: on_members(estimate, member) for name, estimate in found.estimates.items()}
    return replace(found, view=view, estimates=estimates, group=group, facts={**found.facts, "group_items": int(member.sum())})


def _too_small(asked: Asked, alpha: Fraction, group: str, items: int) -> Measured:
    estimates = dict.fromkeys((*ESTIMATED, *MORE), NOTHING)
    return Measured(asked.view, asked.scorer, alpha, 0, estimates, group_facts(items), f"{items} items cannot be split", group)


def _weighted(estimates: Sequence[Estimate], weight: FloatArray) -> Estimate:
    value = float(sum(w * e.value for w, e in zip(weight, estimates, strict=True)))
    influence = np.sum([w * e.influence for w, e in zip(weight, estimates, strict=True)], axis=0)
    return Estimate(value, influence, estimates[0].share)


def _spread(values: Sequence[float | str], weight: FloatArray) -> float:
    return math.sqrt(sum((w * float(v)) ** 2 for w, v in zip(weight, values, strict=True)))
