"""Waves and batches: which items go through the layers together.

In: prompts, a memory plan, a model's embedding.  Out: waves, each a list of batches of embedded tokens; and the shared prefix as batches of
its own. A batch holds items of similar length, so that little of it is padding. Batches come longest first, so that if memory
runs out, it does so at the start of a run.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from producer.engine.memory_plan import FEWEST_TOKENS, MemoryPlan
from producer.engine.skeleton import Skeleton
from producer.engine.step import Batch, pad
from producer.engine.wave_storage import WaveStorage
from producer.prompts.encode import Prompts

MAX_WASTE = 0.05  # share of a batch's tokens that may be padding


class Waves:
    """All batches, wave by wave; can be iterated only once.

    padding : share of all batches' tokens that are padding.
    """

    def __init__(self, prompts: Prompts, plan: MemoryPlan, skeleton: Skeleton, dtype: Any, storage: WaveStorage) -> None:
        self._prompts, self._plan, self._skeleton, self._dtype, self._storage = prompts, plan, skeleton, dtype, storage
        lengths = [len(suffix) for suffix in prompts.suffixes]
        per_worker = -(-sum(lengths) // plan.workers)  # where there are few items, each worker gets some of them
        self._left = deque(_plan_all(prompts, lengths, min(plan.batch_tokens, per_worker)))
        self._most_items = len(lengths)
        self._most_tokens = math.inf
        self.padding = padding_share(self._left, lengths)

    def __iter__(self) -> Iterator[list[Batch]]:
        """Yield the batches of each wave."""
        while self._left:
            yield list(self._next_wave())

    def prefix(self) -> list[Batch]:
        """Return the shared prefix in parts no larger than a batch, since its activations take as much memory as any others."""
        tokens, size = self._prompts.prefix, max(self._plan.batch_tokens, FEWEST_TOKENS)
        return [self._embedded([], [tokens[start : start + size]], start) for start in range(0, len(tokens), size)]

    def limit(self, n_items: int) -> int:
        """Limit all later batches to `n_items` items; return the limit in force, which may be lower already."""
        self._most_items = min(self._most_items, n_items)
        return self._most_items

    def put_back(self, batches: Sequence[Batch]) -> None:
        """Let batches that no layer has begun go through with the next wave, before the others."""
        self._left.extendleft(list(batch.items) for batch in reversed(batches))

    def limit_tokens(self, n_tokens: float) -> None:
        """Limit later waves to `n_tokens` padded tokens; the first batch of a wave may exceed it."""
        self._most_tokens = n_tokens

    def _next_wave(self) -> Iterator[Batch]:
        """Yield one batch, and more as long as their hidden states can be stored."""
        self._storage.start_wave()
        used = 0
        while self._left:
            items = self._left[0]
            n_tokens = len(items) * len(self._prompts.suffixes[items[0]])
            if not self._storage.has_room(n_tokens) or (used and used + n_tokens > self._most_tokens):
                break
            self._left.popleft()
            used += n_tokens
            if len(items) > self._most_items:
                self._left.appendleft(items[self._most_items :])
                items = items[: self._most_items]
            n_before = len(self._prompts.prefix) * (not self._prompts.cut[items[0]])
            batch = self._embedded(items, [self._prompts.suffixes[item] for item in items], n_before)
            yield replace(batch, hidden=self._storage.store(batch.hidden))

    def _embedded(self, items: Sequence[int], sequences: Sequence[Sequence[int]], n_before: int) -> Batch:
        import torch

        ids, last = pad(sequences)
        table = self._skeleton.embed.weight
        hidden = torch.nn.functional.embedding(ids.to(table.device), table).to(self._plan.states_device, self._dtype)
        return Batch(items, self._skeleton.scale(hidden), last, n_before)


def plan_batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Return the item numbers of each batch, longest items first.

    lengths : each item's tokens, without the shared prefix.
    tokens  : most padded tokens in a batch; an item longer than that gets a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda item: -lengths[item])
    return list(_fill(order, lengths, tokens))


def padding_share(batches: Sequence[Sequence[int]], lengths: Sequence[int]) -> float:
    """Return the share of the padded batches' tokens that are padding."""
    padded = sum(len(batch) * max(lengths[item] for item in batch) for batch in batches)
    return 1 - sum(lengths[item] for batch in batches for item in batch) / padded if padded else 0.0


def _plan_all(prompts: Prompts, lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Yield batches; truncated items, which have lost the shared prefix, are never batched with items that have it."""
    for cut in (True, False):
        items = [item for item, is_cut in enumerate(prompts.cut) if is_cut == cut]
        yield from ([items[position] for position in batch] for batch in plan_batches([lengths[item] for item in items], tokens))


def _fill(order: list[int], lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    batch: list[int] = []
    used = 0
    for item in order:
        width = lengths[batch[0]] if batch else lengths[item]
        padded = (len(batch) + 1) * width
        too_large = padded > tokens
        wasteful = padded - used - lengths[item] > MAX_WASTE * padded
        if batch and (too_large or wasteful):
            yield batch
            batch, used = [], 0
        batch.append(item)
        used += lengths[item]
    if batch:
        yield batch
