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
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from producer.engine.attention import SharedPrefix, shared_prefix_attention
from producer.engine.batch_pool import BatchPool
from producer.engine.checkpoints import NOTHING_KEPT, Clock, Keep, WaveTime
from producer.engine.head import HeadOutput, in_order, read_head
from producer.engine.layer_source import LayerSource, Resident, Streamed, Target, WeightBuffer, synchronize, using_weights
from producer.engine.memory_plan import MemoryPlan
from producer.engine.skeleton import Skeleton, take_apart
from producer.engine.step import Batch, run_layer
from producer.engine.wave_storage import WaveStorage, overwrite
from producer.engine.waves import Waves
from producer.machine.free_memory import out_of_memory
from producer.machine.interrupt import Interrupted
from producer.prompts.encode import Prompts

log = logging.getLogger(__name__)
NEXT_WAVE = 1.25  # tokens of the wave after one that was cut, as a multiple; of more, most would be embedded only to be put back again
Done = Callable[[int], None]
Step = Callable[[Batch], Batch]
MayBegin = Callable[[], bool]


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


def nothing_asked(n_letters: int) -> Answers:
    """Return the answers to no item."""
    none = HeadOutput(np.empty((0, n_letters), np.float32), np.empty(0, np.float32), np.empty(0, np.int32))
    return Answers(*none, tokens=0, padding=0.0)


def prefill(  # noqa: PLR0913, PLR0917
    model: Any, prompts: Prompts, option_ids: Sequence[int], plan: MemoryPlan, target: Target, done: Done, keep: Keep = NOTHING_KEPT
) -> Answers:
    """Return the answers to all prompts.

    option_ids : token id of each option letter.
    done       : called after each layer of a wave with that layer's share of the wave's items, and with 0 after each batch; it may raise
                 to stop the run.
    keep       : how to keep the answers of finished waves.
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
        output = _Prefill(skeleton, waves, plan, target, pool, done, keep).answers(len(prompts.suffixes), option_ids)
    return Answers(*output, tokens=prompts.tokens, padding=waves.padding)


class _Prefill:
    """One pass of all prompts through all layers."""

    def __init__(  # noqa: PLR0913, PLR0917
        self, skeleton: Skeleton, waves: Waves, plan: MemoryPlan, target: Target, pool: BatchPool, done: Done, keep: Keep
    ) -> None:
        self.skeleton, self.waves, self.plan, self.target, self.pool, self.done = skeleton, waves, plan, target, pool, done
        self.source: LayerSource = Streamed(skeleton.layers, target) if plan.streamed else Resident(skeleton.layers)
        self.prefixes: dict[int, SharedPrefix] = {}  # by layer number, for all waves; stays empty when layers are streamed
        self.keep, self.clock = keep, Clock(keep)

    def answers(self, n_items: int, option_ids: Sequence[int]) -> HeadOutput:
        """Return the answers to all items; those of finished waves are kept when that is due, and before a signal stops the run."""
        states, waiting, answered = None, list[int](), list[tuple[list[int], HeadOutput]]()

        def read_waiting() -> tuple[list[int], HeadOutput]:
            items = sorted(waiting)
            waiting.clear()
            with using_weights(self.skeleton.norm, WeightBuffer(self.target).load(self.skeleton.norm)):
                hidden = states if len(items) == n_items else states[items]  # type: ignore[index]
                return items, read_head(self.skeleton, hidden, self.target.device, option_ids, self.plan.head_rows)

        def keep_waiting() -> None:
            answered.append(read_waiting())
            self.clock.add(*answered[-1])

        try:
            for wave in self.waves:
                for batch in self._through_all_layers(wave):
                    last = replace(batch, hidden=batch.hidden.to(self.plan.states_device)).last_states()
                    states = last.new_empty(n_items, last.shape[1]) if states is None else states
                    states[list(batch.items)] = last
                    waiting += batch.items
                if self.clock.due:
                    keep_waiting()
        except Interrupted:
            if waiting and self.keep.every < math.inf:
                keep_waiting()
            raise
        if waiting:
            answered.append(read_waiting())
        return in_order(answered)

    def _through_all_layers(self, wave: list[Batch]) -> list[Batch]:
        n_layers, begun = len(self.skeleton.layers), time.monotonic()
        prefix = [] if self.prefixes else self.waves.prefix()
        for number, layer in enumerate(self.source.layers()):
            copied = time.monotonic()
            shared = self.prefixes.get(number) or self._through_prefix(layer, number, prefix)
            if not self.plan.streamed:
                self.prefixes[number] = shared
            step = partial(self._step, layer, number, shared)
            if number == 0:
                on_prefix = (time.monotonic() - copied) * self.plan.streamed
                allowed = WaveTime(self.keep.period, n_layers, copied - begun, on_prefix)
                wave = self._through_layer(step, wave, self._for(allowed.in_a_layer))
            else:
                wave = self._through_layer(step, wave)
            n_items = sum(len(batch.items) for batch in wave)
            self.done(n_items * (number + 1) // n_layers - n_items * number // n_layers)
        if (seconds := time.monotonic() - begun) > allowed.in_all:  # where other layers take longer than the first
            self.waves.limit_tokens(sum(batch.tokens for batch in wave) * allowed.in_all / seconds)
        return wave

    def _for(self, seconds: float) -> MayBegin:
        """Return a function that says for so many seconds, and once for each worker at least, that another batch may begin."""
        number, until = count(), time.monotonic() + seconds

        def may_begin() -> bool:
            if next(number) < self.plan.workers or seconds == math.inf:
                return True
            synchronize(self.target.device)  # else the time that a GPU takes would not be seen
            return time.monotonic() < until

        return may_begin

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

    def _through_layer(self, step: Step, wave: list[Batch], may_begin: MayBegin = lambda: True) -> list[Batch]:
        """Return the batches after a layer; those that ran out of memory are run again when all others have finished.

        Those that may not begin any more go through all layers with the next wave instead.
        """
        after, failed, postponed = list[Batch](), list[Batch](), list[Batch]()
        attempt = partial(_attempt, step, may_begin=may_begin)
        with closing(self.pool.map(attempt, _pop_all(wave), lambda batch: batch.tokens)) as attempts:
            for batch, error in attempts:
                (postponed if isinstance(error, _Postponed) else failed if error else after).append(batch)
                self.done(0)  # lets a signal stop the run between two batches
        if postponed:
            self.waves.put_back(postponed)
            self.waves.limit_tokens(NEXT_WAVE * sum(batch.tokens for batch in [*after, *failed]))
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


class _Postponed(RuntimeError):
    """A batch was not begun."""


def _attempt(step: Step, batch: Batch, may_begin: MayBegin = lambda: True) -> tuple[Batch, RuntimeError | None]:
    """Return the batch after a layer; where memory ran out or it may not begin, the batch as it was and the error."""
    if not may_begin():
        return batch, _Postponed()
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
