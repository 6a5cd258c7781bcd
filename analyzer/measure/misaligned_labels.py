"""Detect answers that do not belong to the items: all or some labels were shuffled, or columns of options were swapped.

A weak model that is overconfident also chooses badly, so poor choices alone are no proof. The test here shows that the link between
choices and answers is at most a small part of what the model's own confidence implies: an equivalence test, which a small sample cannot
pass.

An item's link is the share of its other options that have a smaller logit than the answer, minus the expected share for an answer that is
drawn by the frequencies of the letters alone.
"""

import math
from string import ascii_uppercase
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from analyzer.runs.view import RunView
from analyzer.stats.arrays import BoolArray, FloatArray

NOISE = 0.0005  # one side of a 99.9 % band
SIGMAS = float(ndtri(1 - NOISE))
SURE, PARTLY = 0.25, 0.1  # smallest excess of the mean top prob over accuracy if all labels are wrong, and if some are
SMALL, AT_MOST = 0.12, float(ndtri(0.995))  # a link below this share of the claimed one counts as none; the test has 99.5 % confidence
SWAPPED = 0.1  # how much more often answers agree with another column than with their own; real models' biases for letters reach 0.03
LIKELY = float(ndtri(0.95))
PART = 0.25  # share of the link of all items; in a sound model, the link of wrongly answered items exceeds it


class Link(NamedTuple):
    """Mean link of some items with its standard error, and what it would be if answers were drawn from the model's own probs."""

    mean: float
    error: float
    claimed: float

    @property
    def present(self) -> bool:
        """Whether choices are linked to answers, beyond noise."""
        return self.mean - SIGMAS * self.error > 0

    @property
    def absent(self) -> bool:
        """Whether there is hardly any link: it is not even likely, and its upper bound is a small part of the claimed link."""
        return self.mean < LIKELY * self.error and self.mean + AT_MOST * self.error < SMALL * self.claimed


def label_reasons(view: RunView) -> list[str]:
    """Return the reasons why the labels look wrong; [] if they do not."""
    if swapped := _swapped_columns(view):
        return [swapped]
    everything = np.ones(view.n_items, dtype=np.bool_)
    if not _too_sure(view, everything, PARTLY):
        return []
    beaten = _beaten(view.logits.astype(np.float64))
    link = _link(beaten, view.probs, view, everything)
    figures = f"accuracy {float(view.correct.mean()):.3f}, mean top prob {float(view.top_prob.mean()):.3f}"
    if _too_sure(view, everything, SURE) and link.absent:
        return [f"choices say nothing about answers ({figures}): labels may be misaligned"]
    first = np.arange(view.n_items) < view.n_items // 2
    for name, half in (("first", first), ("second", ~first)):
        others = _link(beaten, view.probs, view, ~half)
        if others.present and _too_sure(view, half, SURE) and _link(beaten, view.probs, view, half).absent:
            return [f"choices say nothing about answers in the {name} half of the items ({figures}): labels may be misaligned there"]
    rest = _link_of_wrong(view)
    if link.present and rest.mean < LIKELY * rest.error and rest.mean + AT_MOST * rest.error < PART * link.mean:
        return [f"where choices are wrong, the other logits say nothing about answers ({figures}): some labels may be misaligned"]
    return []


def _too_sure(view: RunView, which: BoolArray, by: float) -> bool:
    """Whether the mean top prob of some items exceeds their accuracy by more than `by`, beyond noise."""
    right, top = float(view.correct[which].mean()), float(view.top_prob[which].mean())
    return top > right + by + SIGMAS * math.sqrt(max(right * (1 - right), 0.0) / int(which.sum()))


def _link_of_wrong(view: RunView) -> Link:
    """The link of wrongly answered items, among the options that were not chosen.

    If the labels are right, the answer is often the second choice, and this link is at least 0.4 of that of all items. If the labels are
    shuffled, the answer ranks like any other option.
    """
    wrong, items = ~view.correct, np.arange(view.n_items)
    rest, probs = view.logits.astype(np.float64), view.probs.copy()
    rest[items, view.chosen] = probs[items, view.chosen] = np.nan
    usable = wrong & (view.n_options > 2)
    probs /= np.nansum(probs, axis=1, keepdims=True) + np.finfo(np.float64).tiny
    return _link(_beaten(rest), probs, view, usable)


def _beaten(logits: FloatArray) -> FloatArray:
    """Return (item, option) the share of an item's other options with a smaller logit, ties by half; NaN if it has no such option."""
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
    """Return which columns look swapped, or None: answers agree with choices of other letters more often than with their own.

    The comparison corrects for the frequencies of letters, and the noise band for the search over all orders of the columns.
    """
    width, n_items = view.logits.shape[1], view.n_items
    table = np.bincount(view.answer * width + view.chosen, minlength=width * width).reshape(width, width).astype(np.float64)
    more = table - np.outer(table.sum(axis=1), table.sum(axis=0)) / n_items  # than expected
    if (more.argmax(axis=1) == np.arange(width)).all():  # no other order agrees better, and the import below takes its time
        return None
    from scipy.optimize import linear_sum_assignment

    _, order = linear_sum_assignment(more, maximize=True)
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
    letters = [letter for letter in np.flatnonzero(moved) if table[letter].sum()]
    pairs = ", ".join(f"{ascii_uppercase[letter]} as {ascii_uppercase[order[letter]]}" for letter in letters)
    return f"answers agree with the logits of other options ({pairs}): columns may be swapped"
