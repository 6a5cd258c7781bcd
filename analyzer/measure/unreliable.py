"""Flag unreliable runs by fixed rules, each with its reason.

Coverage alone cannot reveal a broken model, since it is near 1 - alpha for any scores. So the logits, the answers and the dense run are
checked as well: logits that no working model produces are the same for every item, clipped at a bound, or repeated for another item. Every
comparison with noise uses a 99.9 % band. A cell with too few items for any statement has a note instead, which does not count against the
model.
"""

import math
from functools import cache

import numpy as np
from scipy.special import bdtr, bdtrc

from analyzer.measure.cell import Cell
from analyzer.measure.misaligned_labels import NOISE, SIGMAS, label_reasons
from analyzer.runs.answer_metrics import answer_metrics
from analyzer.runs.view import RunView, once_per_view
from analyzer.stats.arrays import FloatArray, IntArray, over_options
from schemas.fields import CHAT
from schemas.run import CHECKPOINT

ROUNDING = 1e-12
TRUNCATED = 0.01  # share of prompts that may be truncated; a truncated prompt lacks its demonstrations, then its question
BY_RANK = "topk"  # all its sets have the same number of options, whatever the logits are
FAR = {
    "idk_rate": ('answers "I don\'t know"', 0.1),
    "none_of_above_rate": ('answers "None of the above"', 0.1),
    "option_mass": ("option mass", 0.1),
}
FEWEST = 20  # items that the checks of logits need; fewer may have equal logits by chance
MANY, SOME, FEW = 0.5, 0.05, 0.01  # shares of the items
DETERMINED = 0.9  # among rows equal in all columns but one, the share equal in that one too; 16-bit values are often equal by chance
EXACT_BACKEND = "exact"  # backend of exact posteriors, which are equal for items with the same composition and are not a network's logits


@once_per_view
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
        reasons += [*_logit_reasons(view), *_accuracy_reasons(view)]
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
    if abs(cell.estimates["singleton_rate"].value - 1) < ROUNDING:
        reasons.append("every set holds exactly one option")
    elif abs(size - widest) < ROUNDING:
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
    """Return how the prompts of two runs differ: in wording, or over the same items in truncation or, for runs of one model, in tokens.

    Two models may have different chat templates, so that the wording of their chat prompts differs by nature.
    """
    here, there = view.key, dense.key
    if here.prompt != there.prompt:
        return ()
    if here.prompt_hash and there.prompt_hash not in ("", here.prompt_hash) and not here.prompt.endswith(CHAT):
        return (f"prompt {here.prompt!r} has other wording or demonstrations than in the run it is compared with",)
    if here.items_hash != there.items_hash:
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


@once_per_view
def _below_chance(view: RunView) -> bool:
    return bool(bdtr(int(view.correct.sum()), view.n_items, _chance(view)) < NOISE)


@once_per_view
def _beats_chance(view: RunView) -> bool:
    """Whether a run is better than chance beyond noise; if it is not, full sets are to be expected."""
    return bool(bdtrc(int(view.correct.sum()) - 1, view.n_items, _chance(view)) < NOISE)


def _chance(view: RunView) -> float:
    return float((1 / view.n_options).mean())


def _logit_reasons(view: RunView) -> list[str]:
    """Return the reasons why the logits look broken; [] if they do not."""
    if view.n_items < FEWEST or view.key.backend == EXACT_BACKEND:
        return []
    constant = _constant(view)
    return constant or [*_repeated(view), *_clipped(view)]


def _constant(view: RunView) -> list[str]:
    rising = view.rising_logits.astype(np.float64)
    alike = int(np.unique(_row_number(rising - rising[:, :1]), return_counts=True)[1].max())
    if alike <= MANY * view.n_items:
        return []
    return [f"{alike} of {view.n_items} items have the same logits but for their order: they are constant or rounded to a few values"]


def _repeated(view: RunView) -> list[str]:
    """Detect rows repeated for items of different content. A question that occurs twice should have the same logits twice."""
    rows = view.logits.astype(np.float64)
    number = _row_number(rows)
    if view.n_items - np.unique(number).size <= FEW * view.n_items:
        return []
    content = _content(view)
    repeated, by_chance = _repeats(number, content), _repeats(_row_number(rows[:, 1:]), content)
    if repeated <= FEW * view.n_items or repeated < DETERMINED * by_chance:
        return []
    return [f"{repeated} of {view.n_items} items have the very logits of another item: rows may be duplicated"]


def _clipped(view: RunView) -> list[str]:
    """Detect many items whose extreme logit equals that of the whole run. As log probabilities, one option per item may be at 0."""
    reasons = []
    for name, extreme in (("highest", np.fmax), ("lowest", np.fmin)):
        of_item = over_options(extreme, view.logits)
        bound = float(extreme.reduce(of_item))
        at_bound = int((of_item == bound).sum())
        one_sure = name == "highest" and bound == 0 and ((view.logits == 0).sum(axis=1) <= 1).all()
        if at_bound > SOME * view.n_items and not one_sure:
            reasons.append(f"{at_bound} of {view.n_items} items have a logit of {bound:g}, the {name} of the run: logits may be clipped")
    return reasons


def _repeats(row: FloatArray, content: IntArray) -> int:
    """Number of items that share a row with an item of different content, not counting the first item of each row."""
    distinct = np.unique(row + 1j * content)
    return distinct.size - np.unique(row).size


def _row_number(rows: FloatArray) -> FloatArray:
    """One number per row, equal for equal rows and, except with a probability of 1e-9, different for different rows."""
    return np.asarray(np.where(np.isnan(rows), 0.0, rows) @ _weights(rows.shape[1]))


@cache
def _weights(width: int) -> FloatArray:
    return np.random.default_rng(0).random(width) + 0.5


def _content(view: RunView) -> IntArray:
    """Return a number for each item's question. Without texts the content shows only answer and subject, so every item gets its own."""
    digest = np.ascontiguousarray(view.items.content[view.position, :8]).view(np.uint64)[:, 0]
    _, number = np.unique(digest, return_inverse=True)
    explained = view.logits.shape[1] * max(len(view.items.subjects), 1) * np.unique(view.n_options).size
    return np.arange(view.n_items) if number.max() < explained else number
