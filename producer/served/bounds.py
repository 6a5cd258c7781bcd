"""Options that a server left out: only a bound of their log-probability is known, and it must not be able to change any set.

In: replies.  Out: log-probabilities with the bound where an option was left out, and a note; or a ServerError.

A bound is kept only where no order of scores depends on it. Within an item: at most one option is left out, and its bound lies below every
option that came back, so their order is known. Between items: with the option anywhere from its bound down to probability 0, `lac` (1 - p)
and `aps` (probability of the option and all above it) give each of the item's options an interval of scores, and no score of another item
lies within it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from producer.served.client import ServerError
from producer.served.forms import Reply


@dataclass(frozen=True)
class Bounded:
    """Log-probabilities (item, option), NaN beyond an item's options; `left_out` (item, option) marks bounds."""

    logprobs: NDArray[np.float32]
    left_out: NDArray[np.bool_]

    @classmethod
    def of(cls, replies: Sequence[Reply], options: Sequence[int], n_options: Sequence[int]) -> "Bounded":
        """Return the replies as a table. Raises ServerError for an option that has neither a number nor a bound."""
        table = np.full((len(replies), len(options)), np.nan, np.float32)
        left_out = np.zeros(table.shape, np.bool_)
        for item, (reply, number) in enumerate(zip(replies, n_options, strict=True)):
            for column, token in enumerate(options[:number]):
                value = reply.logprobs.get(token)
                if value is None and reply.bound is None:
                    raise ServerError(f"the server's answer to item {item} lacks option {column + 1}; nothing is put in its place")
                table[item, column] = reply.bound if value is None else value
                left_out[item, column] = value is None
        return cls(table, left_out)


def check_bounds(table: Bounded) -> tuple[str, ...]:
    """Return a note on the options that were left out, none if there are none. Raises ServerError if a bound could change a set."""
    number, items = int(table.left_out.sum()), np.flatnonzero(table.left_out.any(axis=1))
    if not number:
        return ()
    what = f"the server lists too few tokens: {number} options of {len(items)} items are outside, each below a known bound"
    if table.left_out.sum(axis=1).max() > 1:
        raise ServerError(f"{what}, and items lack several, whose order is unknown; nothing is stored; serve with a higher limit")
    for low, high in _score_intervals(table):
        if _touches(low, high, items):
            raise ServerError(f"{what}, which is high enough to change a set; nothing is stored; serve with a higher limit")
    stored = f"{number} options of {len(items)} items were outside the tokens that the server lists; their bound is stored"
    return (f"{stored}, and no set of lac or aps depends on it",)


def _score_intervals(table: Bounded) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return for lac and aps the lowest and highest scores (item, option), with NaN beyond an item's options."""
    highest = np.exp(table.logprobs.astype(np.float64))
    known = np.where(table.left_out, 0.0, highest)
    low_total, high_total = np.nansum(known, axis=1, keepdims=True), np.nansum(highest, axis=1, keepdims=True)
    lac_low, lac_high = 1 - highest / np.where(table.left_out, high_total, low_total), 1 - known / high_total
    above = np.array([[np.nansum(np.where(row >= value, row, 0.0)) for value in row] for row in known])
    aps_low, aps_high = above / high_total, above / low_total
    return [(lac_low, lac_high), (np.where(table.left_out, 1.0, aps_low), np.where(table.left_out, 1.0, aps_high))]


def _touches(low: NDArray[np.float64], high: NDArray[np.float64], items: NDArray[np.intp]) -> bool:
    """Return whether a score of one of these items could reach or pass a score of another item.

    Upper ends are open: an option that was left out has some probability, however small.
    """
    starts, ends = np.sort(low[~np.isnan(low)]), np.sort(high[~np.isnan(high)])
    for item in items:
        has_option = ~np.isnan(low[item])
        start, end = low[item, has_option], high[item, has_option]
        wide = start < end
        met = np.searchsorted(starts, end, side="left") - np.searchsorted(ends, start, side="left")
        met_own = ((start[None, :] < end[:, None]) & (end[None, :] >= start[:, None])).sum(axis=1)
        if np.any((met > met_own) & wide):
            return True
    return False
