"""Prefill: every item through the model once, and only what the options need out of it.

In: a model on the device or on the host, prompts.  Out: `Answers` in item order.

Items go in waves; a wave goes through all layers together, and in each layer the crew takes its batches side by side. With all weights
on the device a wave is a few batches for each of the crew; in layer-major order it is as many as may wait, in memory and on disk, so that
bringing a layer to the device is paid once for all of them. The shared prefix goes through with the first wave and leaves its keys and
values behind; in layer-major order it goes with every wave, since those of all layers would take memory that is not there. When memory
runs out a batch is cut in two where it stands, between two layers, and nothing already computed is lost.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from producer.encode import Prompts
from producer.engine.attention import SharedPrefix, own_attention
from producer.engine.batches import padding_share, plan_batches
from producer.engine.crew import Crew
from producer.engine.head import read_head
from producer.engine.layers import LayerSource, Place, Resident, Streamed, Target, installed
from producer.engine.memory import FEWEST_TOKENS, Layout
from producer.engine.skeleton import Skeleton, take_apart
from producer.engine.step import Slab, pad, run_layer
from producer.engine.waiting import WaitingRoom, put_back

log = logging.getLogger(__name__)
Done = Callable[[int], None]


@dataclass(frozen=True)
class Answers:
    """What the model said, in item order (shapes as in `schemas.run.Run`), and what it took."""

    logits: NDArray[np.float32]
    logsumexp: NDArray[np.float32]
    top_token: NDArray[np.int32]
    tokens: int
    padding: float
    throughput: Mapping[str, float] = field(default_factory=dict)
    noise_floor: Mapping[str, float] = field(default_factory=dict)


def prefill(model: Any, prompts: Prompts, option_ids: Sequence[int], layout: Layout, target: Target, done: Done) -> Answers:  # noqa: PLR0913, PLR0917
    """Return the answers to all prompts.

    option_ids : token id of each option letter.
    done       : called after each layer of a wave with that layer's share of the wave's items, and with 0 after each batch; may raise
                 to stop.
    """
    import torch

    skeleton = take_apart(model)
    with torch.inference_mode(), own_attention(model), closing(WaitingRoom(layout)) as room, Crew(layout.workers, layout.under_way) as crew:
        work = _Prefill(skeleton, prompts, layout, target, room, crew, done)
        hidden = work.last_states()
        with installed(skeleton.norm, Place(target).fill(skeleton.norm)):
            read = read_head(skeleton, hidden, target.device, option_ids, layout.head_rows)
    return Answers(*read, tokens=prompts.tokens, padding=work.padding)


class _Prefill:
    """One pass of all prompts over all layers."""

    def __init__(  # noqa: PLR0913, PLR0917  # what a pass is made of
        self, skeleton: Skeleton, prompts: Prompts, layout: Layout, target: Target, room: WaitingRoom, crew: Crew, done: Done
    ) -> None:
        self.skeleton, self.prompts, self.layout, self.target, self.room, self.crew = skeleton, prompts, layout, target, room, crew
        self.done = done
        self.source: LayerSource = Streamed(skeleton.layers, target) if layout.streamed else Resident(skeleton.layers)
        self.kept: dict[int, SharedPrefix] = {}
        lengths = [len(suffix) for suffix in prompts.suffixes]
        self.batches = deque(_batches(prompts, lengths, min(layout.batch_tokens, -(-sum(lengths) // layout.workers))))
        self.padding = padding_share(self.batches, lengths)
        self.most_items = len(lengths)

    def last_states(self) -> Any:
        """Return every item's last hidden state (item, width), before the final norm."""
        import torch

        states: list[Any] = [None] * len(self.prompts.suffixes)
        while self.batches:
            for slab in self._through_all_layers(list(self._next_wave())):
                last = replace(slab, hidden=slab.hidden.to(self.layout.waiting_on)).last_states()
                for item, state in zip(slab.items, last, strict=True):
                    states[item] = state
        return torch.stack(states)

    def _next_wave(self) -> Iterator[Slab]:
        """Yield the slabs of the next wave: one batch, or as many as may wait."""
        self.room.clear()
        while self.batches and self.room.takes(len(self.batches[0]) * len(self.prompts.suffixes[self.batches[0][0]])):
            batch = self.batches.popleft()
            if len(batch) > self.most_items:
                self.batches.appendleft(batch[self.most_items :])
                batch = batch[: self.most_items]
            n_before = len(self.prompts.prefix) * (not self.prompts.cut[batch[0]])
            slab = self._slab(batch, [self.prompts.suffixes[item] for item in batch], n_before)
            yield replace(slab, hidden=self.room.admit(slab.hidden))

    def _prefix_parts(self) -> Iterator[Slab]:
        """Yield the prefix in parts of a batch's tokens, since its activations take memory as any others do."""
        tokens, size = self.prompts.prefix, max(self.layout.batch_tokens, FEWEST_TOKENS)
        for start in range(0, len(tokens), size):
            yield self._slab([], [tokens[start : start + size]], start)

    def _slab(self, items: Sequence[int], sequences: Sequence[Sequence[int]], n_before: int) -> Slab:
        import torch

        ids, last = pad(sequences)
        table = self.skeleton.embed.weight
        hidden = torch.nn.functional.embedding(ids.to(table.device), table)
        return Slab(items, hidden.to(self.layout.waiting_on, self.target.dtype), last, n_before)

    def _through_all_layers(self, wave: list[Slab]) -> list[Slab]:
        n_items, n_layers = sum(len(slab.items) for slab in wave), len(self.skeleton.layers)
        prefix = [] if self.kept else list(self._prefix_parts())
        for number, layer in enumerate(self.source.layers()):
            window = self.skeleton.windows[number]
            shared = self.kept.get(number) or self._through_prefix(layer, window, prefix)
            if not self.layout.streamed:
                self.kept[number] = shared
            wave = self._through_layer(partial(self._advance, layer, window, shared), wave)
            self.done(n_items * (number + 1) // n_layers - n_items * number // n_layers)
        return wave

    def _through_prefix(self, layer: Any, window: int | None, parts: list[Slab]) -> SharedPrefix:
        """Return what the layer keeps of the prefix, whose parts are moved one layer on."""
        shared = SharedPrefix(recording=True)
        for i, part in enumerate(parts):
            parts[i] = self._run(layer, window, part, shared)
        return replace(shared, recording=False)

    def _through_layer(self, advance: Callable[[Slab], list[Slab]], wave: list[Slab]) -> list[Slab]:
        after = []
        for slabs in self.crew.map(advance, _taken(wave), lambda slab: slab.tokens):
            after += slabs
            self.done(0)  # a signal is obeyed between two batches
        return after

    def _advance(self, layer: Any, window: int | None, shared: SharedPrefix, slab: Slab) -> list[Slab]:
        """Return the slab after a layer, in pieces where memory ran out."""
        try:
            return [self._run(layer, window, slab, replace(shared, touched=False) if slab.n_before else None)]
        except RuntimeError as error:
            if not _out_of_memory(error) or len(slab.items) == 1:
                raise
        self._note_scarcity(len(slab.items))
        return [after for half in slab.halves() for after in self._advance(layer, window, shared, half)]

    def _run(self, layer: Any, window: int | None, slab: Slab, shared: SharedPrefix | None) -> Slab:
        here = replace(slab, hidden=slab.hidden.to(self.target.device))
        after = run_layer(layer, window, self.skeleton.rotary, here, shared)
        return replace(after, hidden=put_back(slab.hidden, after.hidden))

    def _note_scarcity(self, n_items: int) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.most_items = min(self.most_items, (n_items + 1) // 2)
        log.warning("out of memory at %d items in a batch; going on with at most %d", n_items, self.most_items)


def _taken(slabs: list[Slab]) -> Iterator[Slab]:
    """Yield the slabs and let go of each: states of two layers, waiting at once, would be twice the budget."""
    slabs.reverse()
    while slabs:
        yield slabs.pop()


def _batches(prompts: Prompts, lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Return batches; items that lost their prefix by truncation never share one with items that have it."""
    batches = []
    for cut in (True, False):
        items = [i for i, is_cut in enumerate(prompts.cut) if is_cut == cut]
        batches += [[items[i] for i in batch] for batch in plan_batches([lengths[i] for i in items], tokens)]
    return batches


def _out_of_memory(error: RuntimeError) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
