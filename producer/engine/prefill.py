"""Prefill: one forward pass per item, computing only what the option logits need.

In: a model on the device or on the host, prompts.  Out: `Answers` in item order.

Items go through in waves. All batches of a wave go through a layer, several at the same time, before any goes through the next layer. With
all weights on the device a wave is a few batches per worker. Layer by layer, a wave is as many batches as can be stored in memory and on
disk, so that each layer is copied to the device once for all of them. The shared prefix is computed with the first wave, and its keys and
values are kept; layer by layer it is computed again with every wave, since there is no memory for the keys and values of all layers. When a
batch runs out of memory in a layer, that layer is repeated for this batch alone after the others have finished, and the batch is halved as
long as memory runs out. The results of earlier layers are kept.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from producer.engine.attention import SharedPrefix, shared_prefix_attention
from producer.engine.batch_pool import BatchPool
from producer.engine.head import read_head
from producer.engine.layer_source import LayerSource, Resident, Streamed, Target, WeightBuffer, using_weights
from producer.engine.memory_plan import MemoryPlan
from producer.engine.skeleton import Skeleton, take_apart
from producer.engine.step import Batch, run_layer
from producer.engine.wave_storage import WaveStorage, overwrite
from producer.engine.waves import Waves
from producer.machine.free_memory import out_of_memory
from producer.prompts.encode import Prompts

log = logging.getLogger(__name__)
Done = Callable[[int], None]
Step = Callable[[Batch], Batch]


@dataclass(frozen=True)
class Answers:
    """What a model answered, in item order (shapes as in `schemas.run.Run`), and what it cost.

    tokens  : tokens computed, the shared prefix once.
    padding : share of the tokens that were padding.
    notes   : sentences on how the answers were computed, to be recorded with the run.
    """

    logits: NDArray[np.float32]
    logsumexp: NDArray[np.float32]
    top_token: NDArray[np.int32]
    tokens: int
    padding: float
    throughput: Mapping[str, float] = field(default_factory=dict)
    noise_floor: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def prefill(model: Any, prompts: Prompts, option_ids: Sequence[int], plan: MemoryPlan, target: Target, done: Done) -> Answers:  # noqa: PLR0913, PLR0917
    """Return the answers to all prompts.

    option_ids : token id of each option letter.
    done       : called after each layer of a wave with that layer's share of the wave's items, and with 0 after each batch; it may raise
                 to stop the run.
    """
    import torch

    skeleton = take_apart(model)
    with (
        torch.inference_mode(),
        shared_prefix_attention(model),
        closing(WaveStorage(plan)) as storage,
        BatchPool(plan.workers, plan.concurrent_tokens) as pool,
    ):
        waves = Waves(prompts, plan, skeleton, target.dtype, storage)
        hidden = _Prefill(skeleton, waves, plan, target, pool, done).last_states(len(prompts.suffixes))
        with using_weights(skeleton.norm, WeightBuffer(target).load(skeleton.norm)):
            output = read_head(skeleton, hidden, target.device, option_ids, plan.head_rows)
    return Answers(*output, tokens=prompts.tokens, padding=waves.padding)


class _Prefill:
    """One pass of all prompts through all layers."""

    def __init__(self, skeleton: Skeleton, waves: Waves, plan: MemoryPlan, target: Target, pool: BatchPool, done: Done) -> None:  # noqa: PLR0913, PLR0917
        self.skeleton, self.waves, self.plan, self.target, self.pool, self.done = skeleton, waves, plan, target, pool, done
        self.source: LayerSource = Streamed(skeleton.layers, target) if plan.streamed else Resident(skeleton.layers)
        self.prefixes: dict[int, SharedPrefix] = {}  # by layer number, for all waves; stays empty when layers are streamed

    def last_states(self, n_items: int) -> Any:
        """Return every item's last hidden state (item, width), before the final norm."""
        states = None
        for wave in self.waves:
            for batch in self._through_all_layers(wave):
                last = replace(batch, hidden=batch.hidden.to(self.plan.states_device)).last_states()
                states = last.new_empty(n_items, last.shape[1]) if states is None else states
                states[list(batch.items)] = last
        return states

    def _through_all_layers(self, wave: list[Batch]) -> list[Batch]:
        n_items, n_layers = sum(len(batch.items) for batch in wave), len(self.skeleton.layers)
        prefix = [] if self.prefixes else self.waves.prefix()
        for number, layer in enumerate(self.source.layers()):
            shared = self.prefixes.get(number) or self._through_prefix(layer, number, prefix)
            if not self.plan.streamed:
                self.prefixes[number] = shared
            wave = self._through_layer(partial(self._step, layer, number, shared), wave)
            self.done(n_items * (number + 1) // n_layers - n_items * number // n_layers)
        return wave

    def _through_prefix(self, layer: Any, number: int, parts: list[Batch]) -> SharedPrefix:
        """Return the prefix's keys and values in this layer; the batches in `parts` are replaced by those after the layer."""
        shared = SharedPrefix(recording=True)

        def step(part: Batch) -> Batch:
            longer = replace(shared)  # where memory runs out, what this part recorded is discarded
            after = self._run(layer, number, part, longer)
            shared.keys_values = longer.keys_values
            return after

        parts[:] = [piece for part in parts for piece in self._in_pieces(step, part)]
        return replace(shared, recording=False)

    def _through_layer(self, step: Step, wave: list[Batch]) -> list[Batch]:
        """Return the batches after a layer; those that ran out of memory are run again when all others have finished."""
        after, failed = list[Batch](), list[Batch]()
        with closing(self.pool.map(partial(_attempt, step), _pop_all(wave), lambda batch: batch.tokens)) as attempts:
            for batch, error in attempts:
                (failed if error else after).append(batch)
                self.done(0)  # lets a signal stop the run between two batches
        return after + [piece for batch in failed for piece in self._in_pieces(step, batch)]

    def _in_pieces(self, step: Step, batch: Batch) -> list[Batch]:
        """Return the batch after a layer, run alone and halved as long as memory runs out.

        Raises the out-of-memory error if a single item, or a single token of the prefix, does not fit.
        """
        after, error = _attempt(step, batch)
        if not error:
            return [after]
        halves = batch.halves()
        if len(halves) == 1:
            raise error
        if batch.items:
            fewer = self.waves.limit((len(batch.items) + 1) // 2)
            log.warning("out of memory at %d items in a batch; going on with at most %d", len(batch.items), fewer)
        else:
            log.warning("out of memory at %d tokens of the shared prefix; going on with half as many", batch.tokens)
        return [piece for half in halves for piece in self._in_pieces(step, half)]

    def _step(self, layer: Any, number: int, shared: SharedPrefix, batch: Batch) -> Batch:
        return self._run(layer, number, batch, replace(shared, used=False) if batch.n_before else None)

    def _run(self, layer: Any, number: int, batch: Batch, shared: SharedPrefix | None) -> Batch:
        on_device = replace(batch, hidden=batch.hidden.to(self.target.device))
        after = run_layer(layer, self.skeleton.windows[number], self.skeleton.rotaries[number], on_device, shared)
        return replace(after, hidden=overwrite(batch.hidden, after.hidden))


def _attempt(step: Step, batch: Batch) -> tuple[Batch, RuntimeError | None]:
    """Return the batch after a layer; where memory ran out, the batch as it was and the error."""
    try:
        return step(batch), None
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        return batch, error.with_traceback(None)  # the traceback's frames would keep tensors allocated


def _pop_all(batches: list[Batch]) -> Iterator[Batch]:
    """Yield the batches and remove each from the list, so that hidden states before and after a layer do not take twice the budget."""
    batches.reverse()
    while batches:
        yield batches.pop()
