"""Prefill: every item through the model once, and only what the options need out of it.

In: a model in memory, prompts.  Out: `Answers` in item order. The shared prefix is computed once; batches are filled by tokens from
length-sorted items; when memory runs out the batch is halved and nothing already computed is lost.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from producer.encode import Prompts
from producer.engine.batches import padding_share, plan_batches
from producer.engine.head import read_head
from producer.engine.prefix import Lender, Recorder
from producer.engine.skeleton import Skeleton, take_apart
from producer.engine.step import geometry, pad, run_layer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answers:
    """What the model said, in item order (shapes as in `schemas.run.Run`), and what it took."""

    logits: NDArray[np.float32]
    logsumexp: NDArray[np.float32]
    top_token: NDArray[np.int32]
    tokens: int
    padding: float


def prefill(model: Any, prompts: Prompts, option_ids: Sequence[int], tokens: int, done: Callable[[int], None]) -> Answers:
    """Return the answers to all prompts.

    option_ids : token id of each option letter.
    tokens     : most padded tokens in a batch.
    done       : called with the number of items finished after each batch; may raise to stop.
    """
    import torch

    with torch.inference_mode():
        skeleton = take_apart(model)
        hidden, padding = _all_last_states(skeleton, prompts, tokens, done)
        read = read_head(skeleton.head, skeleton.norm(hidden), option_ids)
    return Answers(*read, tokens=prompts.tokens, padding=padding)


def _all_last_states(skeleton: Skeleton, prompts: Prompts, tokens: int, done: Callable[[int], None]) -> tuple[Any, float]:
    """Return the last hidden state of every item (item, width), before the final norm, and the share of padding."""
    import torch

    lengths = [len(suffix) for suffix in prompts.suffixes]
    recorder = _record_prefix(skeleton, prompts.prefix) if prompts.prefix else None
    batches = _batches(prompts, lengths, tokens)
    padding = padding_share(batches, lengths)
    queue, states = deque(batches), [None] * len(lengths)
    while queue:
        batch = queue.popleft()
        lent = Lender(recorder) if recorder and not prompts.cut[batch[0]] else None
        try:
            last = _last_states(skeleton, [prompts.suffixes[i] for i in batch], lent, len(prompts.prefix))
        except RuntimeError as error:
            if not _out_of_memory(error) or len(batch) == 1:
                raise
            queue = _halve(batch, queue)
            continue
        for item, state in zip(batch, last, strict=True):
            states[item] = state
        done(len(batch))
    return torch.stack(states), padding  # type: ignore[arg-type]  # every item was in one batch


def _batches(prompts: Prompts, lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Return batches; items that lost their prefix by truncation never share one with items that have it."""
    batches = []
    for cut in (True, False):
        items = [i for i, is_cut in enumerate(prompts.cut) if is_cut == cut]
        batches += [[items[i] for i in batch] for batch in plan_batches([lengths[i] for i in items], tokens)]
    return batches


def _record_prefix(skeleton: Skeleton, prefix: Sequence[int]) -> Recorder:
    recorder = Recorder()
    hidden = skeleton.embed(pad([prefix], skeleton.embed.weight.device))
    where = geometry(skeleton, hidden, 0)
    for layer, window in zip(skeleton.layers, skeleton.windows, strict=True):
        hidden = run_layer(layer, window, hidden, where, recorder)
    return recorder


def _last_states(skeleton: Skeleton, sequences: Sequence[Sequence[int]], lent: Lender | None, n_prefix: int) -> Any:
    """Return each item's last hidden state (item, width)."""
    import torch

    hidden = skeleton.embed(pad(sequences, skeleton.embed.weight.device))
    where = geometry(skeleton, hidden, n_prefix if lent else 0)
    for layer, window in zip(skeleton.layers, skeleton.windows, strict=True):
        hidden = run_layer(layer, window, hidden, where, lent)
    last = torch.tensor([len(ids) - 1 for ids in sequences], device=hidden.device)
    return hidden[torch.arange(len(sequences), device=hidden.device), last]


def _out_of_memory(error: RuntimeError) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _halve(batch: list[int], queue: deque[list[int]]) -> deque[list[int]]:
    """Return the queue with this batch and all that are as large cut in two."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    limit = (len(batch) + 1) // 2
    log.warning("out of memory at %d items in a batch; going on with at most %d", len(batch), limit)
    return deque(part[start : start + limit] for part in [batch, *queue] for start in range(0, len(part), limit))
