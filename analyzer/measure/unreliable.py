"""Flag unreliable runs by fixed rules, each with its reason.

Coverage alone cannot reveal a broken model, since it is near 1 - alpha for any scores. So the logits, the answers and the dense run are
checked as well. Every comparison with noise uses a 99.9 % band. A cell with too few items for any statement has a note instead, which
does not count against the model.
"""

import math
from functools import lru_cache

from scipy.special import bdtr, bdtrc

from analyzer.measure.broken_logits import logit_reasons
from analyzer.measure.cell import Cell
from analyzer.measure.misaligned_labels import NOISE, SIGMAS, label_reasons
from analyzer.runs.answer_metrics import RECENT, answer_metrics
from analyzer.runs.view import RunView
from schemas.run import CHECKPOINT

EXACT = 1e-12
TRUNCATED = 0.01  # share of prompts that may be truncated; a truncated prompt lacks its demonstrations, then its question
BY_RANK = "topk"  # all its sets have the same number of options, whatever the logits are
FAR = {
    "idk_rate": ('answers "I don\'t know"', 0.1),
    "none_of_above_rate": ('answers "None of the above"', 0.1),
    "option_mass": ("option mass", 0.1),
}


@lru_cache(maxsize=RECENT)
def run_reasons(view: RunView) -> tuple[str, ...]:
    """Return why no figure of this run can be trusted; () if nothing is wrong."""
    reasons = []
    if view.n_nonfinite:
        total = view.n_items + view.n_nonfinite
        reasons.append(f"{view.n_nonfinite} of {total} items have non-finite logits and are left out")
    if view.env.truncated_items > TRUNCATED * len(view.items):
        reasons.append(f"{view.env.truncated_items} of {len(view.items)} prompts were longer than the context and lost their beginning")
    if view.disagreement:
        reasons.append(view.disagreement)
    if view.n_items:
        reasons += [*logit_reasons(view), *_accuracy_reasons(view)]
    return tuple(reasons)


def cell_reasons(cell: Cell) -> list[str]:
    """Return why this cell cannot be used to judge the model: what is wrong with it, or that it has too few items."""
    return [*cell.reasons, cell.note] if cell.note else cell_faults(cell)


def cell_faults(cell: Cell) -> list[str]:
    """Return which faults of the run this cell shows; sets that are full because of too few calibration items are not a fault."""
    reasons = list(cell.reasons)
    if cell.note or cell.group != "all" or not math.isfinite(cell.estimates["coverage"].value):
        return reasons
    expected = cell.forced or cell.scorer == BY_RANK or not _beats_chance(cell.view)
    if expected and not _below_chance(cell.view):
        return reasons
    size, widest = cell.estimates["set_size"].value, cell.view.mean_options
    if abs(cell.estimates["singleton_rate"].value - 1) < EXACT:
        reasons.append("every set holds exactly one option")
    elif abs(size - widest) < EXACT:
        reasons.append("every set is full")
    return reasons


def against_dense(view: RunView, dense: RunView) -> tuple[str, ...]:
    """Return how a run differs too much from its dense run: in its prompts, its share of E or F answers, or its option mass."""
    reasons = [*asked_otherwise(view, dense)]
    for name, (words, allowed) in FAR.items():
        here, there = answer_metrics(view)[name], answer_metrics(dense)[name]
        error = math.hypot(here.error, there.error)
        if abs(here.value - there.value) > allowed + SIGMAS * error:
            reasons.append(f"{words}: {here.value:.3f}, the dense run {there.value:.3f}")
    return tuple(reasons)


def asked_otherwise(view: RunView, dense: RunView) -> tuple[str, ...]:
    """Return how the prompts of two runs over the same items differ: in truncation, or, for runs of one model, in tokens."""
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
    below = f"accuracy {float(view.correct.mean()):.3f} is below chance {_chance(view):.3f} beyond noise"
    return [*([below] if _below_chance(view) else []), *label_reasons(view)]


def _below_chance(view: RunView) -> bool:
    return bool(bdtr(int(view.correct.sum()), view.n_items, _chance(view)) < NOISE)


def _beats_chance(view: RunView) -> bool:
    """Whether a run is better than chance beyond noise; if it is not, full sets are to be expected."""
    return bool(bdtrc(int(view.correct.sum()) - 1, view.n_items, _chance(view)) < NOISE)


def _chance(view: RunView) -> float:
    return float((1 / view.n_options).mean())
