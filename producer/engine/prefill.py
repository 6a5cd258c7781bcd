"""Prefill: every item through the model once, and only what the options need out of it.

In: a model on the device or on the host, prompts.  Out: `Answers` in item order.

Items go in waves; a wave goes through all layers together, and in each layer the crew takes its batches side by side. With all weights
on the device a wave is a few batches for each of the crew; in layer-major order it is as many as may wait, in memory and on disk, so that
bringing a layer to the device is paid once for all of them. The shared prefix goes through with the first wave and leaves its keys and
values behind; in layer-major order it goes with every wave, since those of all layers would take memory that is not there. When memory
runs out a batch waits for the others and goes alone, cut in two where it stands, between two layers: nothing computed is lost.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from producer.engine.attention import SharedPrefix, own_attention
from producer.engine.crew import Crew
from producer.engine.head import read_head
from producer.engine.layer_source import LayerSource, Place, Resident, Streamed, Target, installed
from producer.engine.memory_plan import Layout
from producer.engine.skeleton import Skeleton, take_apart
from producer.engine.step import Slab, run_layer
from producer.engine.waiting import WaitingRoom, put_back
from producer.engine.waves import Waves
from producer.machine.free_memory import out_of_memory
from producer.prompts.encode import Prompts

log = logging.getLogger(__name__)
Done = Callable[[int], None]
Step = Callable[[Slab], Slab]


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
        waves = Waves(prompts, layout, skeleton.embed.weight, target.dtype, room)
        hidden = _Prefill(skeleton, waves, layout, target, crew, done).last_states(len(prompts.suffixes))
        with installed(skeleton.norm, Place(target).fill(skeleton.norm)):
            read = read_head(skeleton, hidden, target.device, option_ids, layout.head_rows)
    return Answers(*read, tokens=prompts.tokens, padding=waves.padding)


class _Prefill:
    """One pass of all prompts over all layers."""

    def __init__(self, skeleton: Skeleton, waves: Waves, layout: Layout, target: Target, crew: Crew, done: Done) -> None:  # noqa: PLR0913, PLR0917
        self.skeleton, self.waves, self.layout, self.target, self.crew, self.done = skeleton, waves, layout, target, crew, done
        self.source: LayerSource = Streamed(skeleton.layers, target) if layout.streamed else Resident(skeleton.layers)
        self.kept: dict[int, SharedPrefix] = {}

    def last_states(self, n_items: int) -> Any:
        """Return every item's last hidden state (item, width), before the final norm."""
        states = None
        for wave in self.waves:
            for slab in self._through_all_layers(wave):
                last = replace(slab, hidden=slab.hidden.to(self.layout.waiting_on)).last_states()
                states = last.new_empty(n_items, last.shape[1]) if states is None else states
                states[list(slab.items)] = last
        return states

    def _through_all_layers(self, wave: list[Slab]) -> list[Slab]:
        n_items, n_layers = sum(len(slab.items) for slab in wave), len(self.skeleton.layers)
        prefix = [] if self.kept else self.waves.prefix()
        for number, layer in enumerate(self.source.layers()):
            window = self.skeleton.windows[number]
            shared = self.kept.get(number) or self._through_prefix(layer, window, prefix)
            if not self.layout.streamed:
                self.kept[number] = shared
            wave = self._through_layer(partial(self._step, layer, window, shared), wave)
            self.done(n_items * (number + 1) // n_layers - n_items * number // n_layers)
        return wave

    def _through_prefix(self, layer: Any, window: int | None, parts: list[Slab]) -> SharedPrefix:
        """Return what the layer keeps of the prefix, whose parts are moved one layer on."""
        shared = SharedPrefix(recording=True)

        def step(part: Slab) -> Slab:
            longer = replace(shared)  # where memory runs out, what this part recorded is forgotten
            after = self._run(layer, window, part, longer)
            shared.keys_values = longer.keys_values
            return after

        parts[:] = [piece for part in parts for piece in self._in_pieces(step, part)]
        return replace(shared, recording=False)

    def _through_layer(self, step: Step, wave: list[Slab]) -> list[Slab]:
        """Return the slabs after a layer; those for which memory ran out go again when all others are through."""
        after, scarce = list[Slab](), list[Slab]()
        with closing(self.crew.map(partial(_attempt, step), _taken(wave), lambda slab: slab.tokens)) as attempts:
            for slab, error in attempts:
                (scarce if error else after).append(slab)
                self.done(0)  # a signal is obeyed between two batches
        return after + [piece for slab in scarce for piece in self._in_pieces(step, slab)]

    def _in_pieces(self, step: Step, slab: Slab) -> list[Slab]:
        """Return the slab after a layer, alone under way, and cut in two as long as memory runs out."""
        after, error = _attempt(step, slab)
        if not error:
            return [after]
        halves = slab.halves()
        if len(halves) == 1:
            raise error
        if slab.items:
            fewer = self.waves.limit((len(slab.items) + 1) // 2)
            log.warning("out of memory at %d items in a batch; going on with at most %d", len(slab.items), fewer)
        else:
            log.warning("out of memory at %d tokens of the shared prefix; going on with half as many", slab.tokens)
        return [piece for half in halves for piece in self._in_pieces(step, half)]

    def _step(self, layer: Any, window: int | None, shared: SharedPrefix, slab: Slab) -> Slab:
        return self._run(layer, window, slab, replace(shared, touched=False) if slab.n_before else None)

    def _run(self, layer: Any, window: int | None, slab: Slab, shared: SharedPrefix | None) -> Slab:
        here = replace(slab, hidden=slab.hidden.to(self.target.device))
        after = run_layer(layer, window, self.skeleton.rotary, here, shared)
        return replace(after, hidden=put_back(slab.hidden, after.hidden))


def _attempt(step: Step, slab: Slab) -> tuple[Slab, RuntimeError | None]:
    """Return the slab after a layer; or the slab as it was, and the error, where memory ran out."""
    try:
        return step(slab), None
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        return slab, error.with_traceback(None)  # whose frames would hold what was taken


def _taken(slabs: list[Slab]) -> Iterator[Slab]:
    """Yield the slabs and let go of each: states of two layers, waiting at once, would be twice the budget."""
    slabs.reverse()
    while slabs:
        yield slabs.pop()
