"""Detect logits that no working model produces: the same for every item, clipped at a bound, or repeated for another item."""

import numpy as np

from analyzer.runs.view import RunView
from analyzer.stats.arrays import FloatArray, IntArray

FEWEST = 20  # items that the checks need; fewer may have equal logits by chance
MANY, SOME, FEW = 0.5, 0.05, 0.01  # shares of the items
DETERMINED = 0.9  # among rows equal in all columns but one, the share equal in that one too; 16-bit values are often equal by chance
EXACT = "exact"  # backend of exact posteriors, which are equal for items with the same composition and are not a network's logits


def logit_reasons(view: RunView) -> list[str]:
    """Return the reasons why the logits look broken; [] if they do not."""
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
    for name, extreme in (("highest", np.nanmax), ("lowest", np.nanmin)):
        bound = float(extreme(view.logits))
        at_bound = int((extreme(view.logits, axis=1) == bound).sum())
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
    weights = np.random.default_rng(0).random(rows.shape[1]) + 0.5
    return np.asarray(np.nan_to_num(rows) @ weights)


def _content(view: RunView) -> IntArray:
    """Return a number for each item's question. Without texts the content shows only answer and subject, so every item gets its own."""
    digest = np.ascontiguousarray(view.items.content[view.position, :8]).view(np.uint64)[:, 0]
    _, number = np.unique(digest, return_inverse=True)
    explained = view.logits.shape[1] * max(len(view.items.subjects), 1) * np.unique(view.n_options).size
    return np.arange(view.n_items) if number.max() < explained else number
