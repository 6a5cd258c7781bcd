"""Waves: which items go through the layers together, as hidden states that wait for the first one.

In: prompts, a layout, the embedding table.  Out: lists of slabs, one list per wave, and the shared prefix as slabs of its own.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from producer.engine.batches import padding_share, plan_batches
from producer.engine.memory_plan import FEWEST_TOKENS, Layout
from producer.engine.step import Slab, pad
from producer.engine.waiting import WaitingRoom
from producer.prompts.encode import Prompts


class Waves:
    """The batches that are left, wave by wave; iterate once.

    padding : share of all batches' tokens that are padding.
    """

    def __init__(self, prompts: Prompts, layout: Layout, table: Any, dtype: Any, room: WaitingRoom) -> None:
        self._prompts, self._layout, self._table, self._dtype, self._room = prompts, layout, table, dtype, room
        lengths = [len(suffix) for suffix in prompts.suffixes]
        fair = -(-sum(lengths) // layout.workers)  # few items are shared out, so that no core looks on
        self._batches = deque(_batches(prompts, lengths, min(layout.batch_tokens, fair)))
        self._most_items = len(lengths)
        self.padding = padding_share(self._batches, lengths)

    def __iter__(self) -> Iterator[list[Slab]]:
        """Yield the slabs of each wave."""
        while self._batches:
            yield list(self._next())

    def prefix(self) -> list[Slab]:
        """Return the prefix in parts of a batch's tokens, since its activations take memory as any others do."""
        tokens, size = self._prompts.prefix, max(self._layout.batch_tokens, FEWEST_TOKENS)
        return [self._slab([], [tokens[start : start + size]], start) for start in range(0, len(tokens), size)]

    def limit(self, n_items: int) -> int:
        """Let no batch from now on have more than so many items; return the limit, which may be lower already."""
        self._most_items = min(self._most_items, n_items)
        return self._most_items

    def _next(self) -> Iterator[Slab]:
        """Yield one batch, and more as long as they may wait."""
        self._room.clear()
        while self._batches and self._room.takes(len(self._batches[0]) * len(self._prompts.suffixes[self._batches[0][0]])):
            batch = self._batches.popleft()
            if len(batch) > self._most_items:
                self._batches.appendleft(batch[self._most_items :])
                batch = batch[: self._most_items]
            n_before = len(self._prompts.prefix) * (not self._prompts.cut[batch[0]])
            slab = self._slab(batch, [self._prompts.suffixes[item] for item in batch], n_before)
            yield replace(slab, hidden=self._room.admit(slab.hidden))

    def _slab(self, items: Sequence[int], sequences: Sequence[Sequence[int]], n_before: int) -> Slab:
        import torch

        ids, last = pad(sequences)
        hidden = torch.nn.functional.embedding(ids.to(self._table.device), self._table)
        return Slab(items, hidden.to(self._layout.waiting_on, self._dtype), last, n_before)


def _batches(prompts: Prompts, lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Yield batches; items that lost their prefix by truncation never share one with items that have it."""
    for cut in (True, False):
        items = [i for i, is_cut in enumerate(prompts.cut) if is_cut == cut]
        yield from ([items[i] for i in batch] for batch in plan_batches([lengths[i] for i in items], tokens))
