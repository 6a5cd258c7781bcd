"""Unreliable: a computed flag with its reason, never an opinion.

Coverage alone cannot see a broken model: it is near 1 - alpha for any scores. So the answers themselves, the ties and the dense run are
looked at as well. Every comparison with noise uses a 99.9 % band.
"""

import math
from functools import lru_cache

import numpy as np
from scipy.special import bdtr, ndtri

from analyzer.measure.cell import Cell
from analyzer.runs.answer_metrics import RECENT, answer_metrics
from analyzer.runs.view import RunView
from schemas.run import CHECKPOINT

NOISE = 0.0005  # one side of the band
SIGMAS = float(ndtri(1 - NOISE))
EXACT = 1e-12
TRUNCATED = 0.01  # share of prompts that may be truncated; a truncated prompt lacks its demonstrations, then its question
SURE = 0.25  # mean top prob above accuracy by this much, without any link between choices and answers, is misalignment
FAR = {
    "idk_rate": ('answers "I don\'t know"', 0.1),
    "none_of_above_rate": ('answers "None of the above"', 0.1),
    "option_mass": ("option mass", 0.1),
}


@lru_cache(maxsize=RECENT)
def run_reasons(view: RunView) -> tuple[str, ...]:
    """Return why no figure of this run can be trusted; () where nothing is wrong."""
    reasons = []
    if view.n_nonfinite:
        total = view.n_items + view.n_nonfinite
        reasons.append(f"{view.n_nonfinite} of {total} items have non-finite logits and are left out")
    if view.env.truncated_items > TRUNCATED * len(view.items):
        reasons.append(f"{view.env.truncated_items} of {len(view.items)} prompts were longer than the context and lost their beginning")
    if view.disagreement:
        reasons.append(view.disagreement)
    if view.n_items:
        reasons += _accuracy_reasons(view)
    return tuple(reasons)


def cell_reasons(cell: Cell) -> list[str]:
    """Return why this cell says nothing about the model."""
    if cell.note:
        return [*cell.reasons, cell.note]
    if cell.group != "all" or not math.isfinite(cell.estimates["coverage"].value):
        return list(cell.reasons)
    size, widest = cell.estimates["set_size"].value, cell.view.mean_options
    reasons = list(cell.reasons)
    if abs(cell.estimates["singleton_rate"].value - 1) < EXACT:
        reasons.append("every set holds exactly one option")
    elif abs(size - widest) < EXACT:
        reasons.append("every set is full")
    return reasons


def against_dense(view: RunView, dense: RunView) -> tuple[str, ...]:
    """Return in what a run's answers are far from those of its dense run: share of E or F answers, option mass."""
    reasons = [*asked_otherwise(view, dense)]
    for name, (words, allowed) in FAR.items():
        here, there = answer_metrics(view)[name], answer_metrics(dense)[name]
        error = math.hypot(here.error, there.error)
        if abs(here.value - there.value) > allowed + SIGMAS * error:
            reasons.append(f"{words}: {here.value:.3f}, the dense run {there.value:.3f}")
    return tuple(reasons)


def asked_otherwise(view: RunView, dense: RunView) -> tuple[str, ...]:
    """Return how the prompts of two runs over the same items differ: in truncation, or in tokens where both stand for one model."""
    here, there = view.key, dense.key
    if (here.items_hash, here.prompt) != (there.items_hash, there.prompt):
        return ()
    if view.env.truncated_items != dense.env.truncated_items:
        return (f"{view.env.truncated_items} of its prompts were truncated, {dense.env.truncated_items} of the dense run's",)
    one_model = here.model == there.model or here.method == CHECKPOINT
    if one_model and here.tokens_hash and there.tokens_hash not in ("", here.tokens_hash):
        return ("its prompts are other tokens than those of the dense run: the tokenizers differ",)
    return ()


def _accuracy_reasons(view: RunView) -> list[str]:
    right, chance = int(view.correct.sum()), float((1 / view.n_options).mean())
    accuracy = right / view.n_items
    if bdtr(right, view.n_items, chance) < NOISE:
        return [f"accuracy {accuracy:.3f} is below chance {chance:.3f} beyond noise"]
    agreeing = _independent_agreement(view)
    noise = SIGMAS * math.sqrt(max(agreeing * (1 - agreeing), 0.0) / view.n_items)
    top = float(np.nanmax(view.probs, axis=1).mean())
    if abs(accuracy - agreeing) <= noise and top > accuracy + SURE + noise:
        return [f"choices say nothing about answers (accuracy {accuracy:.3f}, mean top prob {top:.3f}): labels may be misaligned"]
    return []


def _independent_agreement(view: RunView) -> float:
    """Accuracy that a run would have if its choices were drawn without looking at the item."""
    width = view.logits.shape[1]
    chosen, answers = (np.bincount(values, minlength=width) / view.n_items for values in (view.chosen, view.answer))
    return float(chosen @ answers)
