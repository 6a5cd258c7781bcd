"""Logits that no working model gives: the same for every item, cut off at a bound, or those of one item repeated for another."""

import numpy as np

from analyzer.runs.view import RunView
from analyzer.stats.arrays import FloatArray, IntArray

FEWEST = 20  # items; fewer may agree by chance
MANY, SOME, FEW = 0.5, 0.05, 0.01  # shares of the items
DETERMINED = 0.9  # of rows alike in all columns but one, the share alike in that one too; values of 16 bits agree by chance
EXACT = "exact"  # backend of posteriors that were computed and are no network's logits: items of one composition share theirs


def logit_reasons(view: RunView) -> list[str]:
    """Return in what way the logits look broken; [] where nothing does."""
    if view.n_items < FEWEST or view.key.backend == EXACT:
        return []
    constant = _constant(view)
    return constant or [*_repeated(view), *_clipped(view)]


def _constant(view: RunView) -> list[str]:
    rising = np.sort(view.logits.astype(np.float64), axis=1)
    alike = int(np.unique(_row_number(rising - rising[:, :1]), return_counts=True)[1].max())
    if alike <= MANY * view.n_items:
        return []
    return [f"{alike} of {view.n_items} items have the same logits but for their order: they are constant or rounded to a few values"]


def _repeated(view: RunView) -> list[str]:
    """Rows that stand for items of other content. A question that is asked again has its own logits again, and that is no fault."""
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
    """Many items at the largest or the smallest logit of all. Of log probabilities, one option of an item may well be at 0."""
    reasons = []
    for name, extreme in (("highest", np.nanmax), ("lowest", np.nanmin)):
        bound = float(extreme(view.logits))
        at_bound = int((extreme(view.logits, axis=1) == bound).sum())
        one_sure = name == "highest" and bound == 0 and ((view.logits == 0).sum(axis=1) <= 1).all()
        if at_bound > SOME * view.n_items and not one_sure:
            reasons.append(f"{at_bound} of {view.n_items} items have a logit of {bound:g}, the {name} of the run: logits may be clipped")
    return reasons


def _repeats(row: FloatArray, content: IntArray) -> int:
    """How many items share a row with another item of other content, the first of each row not counted."""
    distinct = np.unique(row + 1j * content)
    return distinct.size - np.unique(row).size


def _row_number(rows: FloatArray) -> FloatArray:
    """One number per row, equal for equal rows and, but for a chance of 1e-9, for no others."""
    weights = np.random.default_rng(0).random(rows.shape[1]) + 0.5
    return np.asarray(np.nan_to_num(rows) @ weights)


def _content(view: RunView) -> IntArray:
    """Number of each item's question. Items without a text differ in answer and subject alone, so each counts as a question of its own."""
    digest = np.ascontiguousarray(view.items.content[view.position, :8]).view(np.uint64)[:, 0]
    _, number = np.unique(digest, return_inverse=True)
    explained = view.logits.shape[1] * max(len(view.items.subjects), 1) * np.unique(view.n_options).size
    return np.arange(view.n_items) if number.max() < explained else number
