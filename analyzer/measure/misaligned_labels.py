"""Do the answers belong to the items? Signs that labels were shuffled, in part or in whole, or that columns of options were swapped.

A weak model that is far too sure of itself also chooses badly, so poor choices alone are no proof. What is shown here is that a link
between choices and answers is at most a small part of what the model's own confidence claims: an equivalence test, which a small sample
cannot pass.

The link is the share of an item's other options that the answer beats by its logit, less what an answer drawn by its letter alone would
beat.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import ndtri

from analyzer.runs.view import RunView
from analyzer.stats.arrays import BoolArray, FloatArray

NOISE = 0.0005  # one side of a 99.9 % band
SIGMAS = float(ndtri(1 - NOISE))
SURE, PARTLY = 0.25, 0.1  # the mean top prob lies above accuracy by this much where all labels are wrong, where some are
SMALL, AT_MOST = 0.12, float(ndtri(0.995))  # part of the claimed link below which there is none, shown with 99.5 % confidence
SWAPPED = 0.1  # how much more often answers agree with another column than with their own; letters' biases of real models reach 0.03
LIKELY = float(ndtri(0.95))
PART = 0.25  # of the link of all items, which the wrong ones of a sound model exceed
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Link(NamedTuple):
    """Mean link of some items with its standard error, and what it would be if answers were drawn by the model's own probs."""

    mean: float
    error: float
    claimed: float

    @property
    def seen(self) -> bool:
        """Whether choices have to do with answers, beyond noise."""
        return self.mean - SIGMAS * self.error > 0

    @property
    def absent(self) -> bool:
        """Whether they hardly can have: a link is not even likely, and the largest one possible is a small part of what is claimed."""
        return self.mean < LIKELY * self.error and self.mean + AT_MOST * self.error < SMALL * self.claimed


def label_reasons(view: RunView) -> list[str]:
    """Return in what way the labels look wrong; [] where nothing shows it."""
    if swapped := _swapped_columns(view):
        return [swapped]
    everything = np.ones(view.n_items, dtype=np.bool_)
    if not _too_sure(view, everything, PARTLY):
        return []
    beaten = _beaten(view.logits.astype(np.float64))
    whole = _link(beaten, view.probs, view, everything)
    said = f"accuracy {float(view.correct.mean()):.3f}, mean top prob {float(np.nanmax(view.probs, axis=1).mean()):.3f}"
    if _too_sure(view, everything, SURE) and whole.absent:
        return [f"choices say nothing about answers ({said}): labels may be misaligned"]
    first = np.arange(view.n_items) < view.n_items // 2
    for name, half in (("first", first), ("second", ~first)):
        others = _link(beaten, view.probs, view, ~half)
        if others.seen and _too_sure(view, half, SURE) and _link(beaten, view.probs, view, half).absent:
            return [f"choices say nothing about answers in the {name} half of the items ({said}): labels may be misaligned there"]
    rest = _link_of_wrong(view)
    if whole.seen and rest.mean < LIKELY * rest.error and rest.mean + AT_MOST * rest.error < PART * whole.mean:
        return [f"where choices are wrong, the other logits say nothing about answers ({said}): some labels may be misaligned"]
    return []


def _too_sure(view: RunView, which: BoolArray, by: float) -> bool:
    """Whether the mean top prob of some items is above their accuracy by so much, beyond noise."""
    right, top = float(view.correct[which].mean()), float(np.nanmax(view.probs[which], axis=1).mean())
    return top > right + by + SIGMAS * math.sqrt(max(right * (1 - right), 0.0) / int(which.sum()))


def _link_of_wrong(view: RunView) -> Link:
    """The link of wrong items among the options that were not chosen.

    Of a model whose labels are right, the answer is often the second choice: at least 0.4 of the link of all items. Of shuffled labels it
    ranks as any option does.
    """
    wrong, items = ~view.correct, np.arange(view.n_items)
    rest, probs = view.logits.astype(np.float64), view.probs.copy()
    rest[items, view.chosen] = probs[items, view.chosen] = np.nan
    usable = wrong & (view.n_options > 2)
    probs /= np.nansum(probs, axis=1, keepdims=True) + np.finfo(np.float64).tiny
    return _link(_beaten(rest), probs, view, usable)


def _beaten(logits: FloatArray) -> FloatArray:
    """Return (item, option) the share of an item's other options that have a smaller logit, ties by half; NaN where there is no option."""
    smaller = (logits[:, :, None] > logits[:, None, :]).sum(axis=2) + 0.5 * ((logits[:, :, None] == logits[:, None, :]).sum(axis=2) - 1)
    others = np.maximum((~np.isnan(logits)).sum(axis=1, keepdims=True) - 1, 1)
    return np.where(np.isnan(logits), np.nan, smaller / others)


def _link(beaten: FloatArray, probs: FloatArray, view: RunView, which: BoolArray) -> Link:
    answer, shares = view.answer[which], beaten[which]
    prior = np.bincount(answer, minlength=shares.shape[1]) * ~np.isnan(shares)
    by_letter = np.nansum(prior * shares, axis=1) / np.maximum(prior.sum(axis=1), 1)
    if answer.size < 2:
        return Link(0.0, math.inf, 0.0)
    link = shares[np.arange(answer.size), answer] - by_letter
    claimed = np.nansum(probs[which] * shares, axis=1) - by_letter
    return Link(float(link.mean()), float(link.std(ddof=1)) / math.sqrt(answer.size), float(claimed.mean()))


def _swapped_columns(view: RunView) -> str | None:
    """Say which columns look swapped: answers agree with the choices of other letters better than with their own, beyond noise.

    Compared with what the letters' frequencies alone would give; the noise is that of the best of all orders of the columns.
    """
    width, n_items = view.logits.shape[1], view.n_items
    table = np.zeros((width, width))
    np.add.at(table, (view.answer, view.chosen), 1.0)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n_items
    _, order = linear_sum_assignment(table - expected, maximize=True)
    moved = order != np.arange(width)
    concerned = moved[view.answer]
    if not concerned.any():
        return None
    frequency = table.sum(axis=0) / n_items
    target = order[view.answer]
    gain = (view.chosen == target) * 1.0 - (view.chosen == view.answer) - (frequency[target] - frequency[view.answer])
    gain = np.where(concerned, gain, 0.0)
    sigmas = -float(ndtri(NOISE / math.factorial(width)))
    if gain[concerned].mean() < SWAPPED or not gain.mean() > sigmas * float(gain.std()) / math.sqrt(n_items):
        return None
    pairs = ", ".join(f"{LETTERS[letter]} as {LETTERS[order[letter]]}" for letter in np.flatnonzero(moved) if table[letter].sum())
    return f"answers agree with the logits of other options ({pairs}): columns may be swapped"
