"""The generic path: the model's own forward pass, for every causal language model that transformers loads.

In: a model, prompts.  Out: `Answers` in item order.

All items of a batch have the same number of tokens, so there is no padding and no mask: padding on the left gives wrong logits in 7 of 85
model families, padding on the right in 3. Only the last token's logits are computed where the model offers that. The shared prefix is
computed once, and a copy of the model's cache is repeated for the items of every batch. Whether that works depends on the model family, so
some items are also answered without the cache; where the two disagree, or the cache cannot be repeated, every prompt is computed whole.
"""

import inspect
import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np

from producer.engine.admission import agree, reset_rotary, shares_prefix
from producer.engine.checkpoints import NOTHING_KEPT, Clock, Keep
from producer.engine.head import HeadOutput
from producer.engine.prefill import Answers, Done
from producer.machine.free_memory import out_of_memory
from producer.machine.interrupt import Interrupted
from producer.prompts.encode import Prompts

log = logging.getLogger(__name__)
MOST_TOKENS = {"cpu": 1024, "other": 8192}  # most tokens of a batch, counting the shared prefix for every item
CHECKED = 3  # first items that are answered with and without the cache; the shortest and the longest are added
HEAD_ROWS = 16384  # rows of the head that are converted to float32 at a time


def prefill_whole(  # noqa: PLR0913, PLR0917
    model: Any, prompts: Prompts, option_ids: Sequence[int], device: str, done: Done, batch_tokens: int = 0, keep: Keep = NOTHING_KEPT
) -> Answers:
    """Return the answers to all prompts.

    option_ids   : token id of each option letter.
    device       : the device that the model computes on.
    done         : called after each batch with its number of items; it may raise to stop the run.
    batch_tokens : most tokens in a batch, 0 for a default; an item longer than that gets a batch of its own.
    keep         : how to keep the answers of finished batches.
    """
    import torch

    with torch.inference_mode(), _float32_head(model):
        return _Pass(model, prompts, option_ids, device, done, keep).answers(batch_tokens or MOST_TOKENS.get(device, MOST_TOKENS["other"]))


class _Pass:
    """One pass of all prompts through a model."""

    def __init__(  # noqa: PLR0913, PLR0917
        self, model: Any, prompts: Prompts, option_ids: Sequence[int], device: str, done: Done, keep: Keep
    ) -> None:
        self.keep, self.clock, self.waiting = keep, Clock(keep), dict[int, HeadOutput]()
        self.model, self.prompts, self.options, self.device, self.done = model, prompts, list(option_ids), device, done
        last_only = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.arguments: dict[str, Any] = {"logits_to_keep": 1} if last_only else {}

    def answers(self, batch_tokens: int) -> Answers:
        """Return the answers to all prompts in batches of equal length."""
        n_items, cache = len(self.prompts.suffixes), self._prefix_cache()
        rows: dict[int, HeadOutput] = {}
        shared = [item for item in range(n_items) if cache is not None and not self.prompts.cut[item]]
        alone = sorted(set(range(n_items)) - set(shared))
        try:
            for some, their_cache in ((shared, cache), (alone, None)):
                for items in _equal_lengths(some, self.prompts, batch_tokens):
                    rows |= self._answered(items, their_cache)
                    if self.clock.due:
                        self._keep_waiting()
        except Interrupted:
            if self.keep.every < math.inf:
                self._keep_waiting()
            raise
        tokens = self.prompts.tokens if shared else sum(len(self.prompts.whole(item)) for item in range(n_items))
        return Answers(*_stacked(rows, range(n_items)), tokens=tokens, padding=0.0)

    def _answered(self, items: Sequence[int], cache: Any) -> dict[int, HeadOutput]:
        """Return the answers of one batch by item; if memory runs out, the batch is halved until it fits."""
        try:
            answers = self._forward(items, cache)
            self.waiting |= answers
            self.done(len(items))
            return answers
        except RuntimeError as error:
            if not out_of_memory(error) or len(items) == 1:
                raise
        log.warning("out of memory at %d items in a batch; going on with half as many", len(items))
        middle = len(items) // 2
        return self._answered(items[:middle], cache) | self._answered(items[middle:], cache)

    def _keep_waiting(self) -> None:
        if self.waiting:
            self.clock.add([*self.waiting], _stacked(self.waiting, [*self.waiting]))
            self.waiting.clear()

    def _forward(self, items: Sequence[int], cache: Any) -> dict[int, HeadOutput]:
        import torch

        reset_rotary(self.model)
        sequences = [self.prompts.whole(item) if cache is None else self.prompts.suffixes[item] for item in items]
        ids = torch.tensor([list(sequence) for sequence in sequences], device=self.device)
        arguments = self.arguments if cache is None else self.arguments | {"past_key_values": _repeated(cache, len(items))}
        logits = self.model(input_ids=ids, use_cache=cache is not None, **arguments).logits[:, -1].float()
        total, top = logits.logsumexp(1), logits.argmax(1).int()
        chosen = logits[:, self.options]
        arrays = [tensor.cpu().numpy() for tensor in (chosen, total, top)]
        return {item: HeadOutput(*(array[row : row + 1] for array in arrays)) for row, item in enumerate(items)}

    def _prefix_cache(self) -> Any:
        """Return the model's cache after the shared prefix; None if there is no prefix, or using the cache fails or changes the logits."""
        items = [item for item, is_cut in enumerate(self.prompts.cut) if not is_cut]
        if not (self.prompts.prefix and len(items) > 1 and shares_prefix(self.model.config)):
            return None
        by_length = sorted(items, key=lambda item: len(self.prompts.suffixes[item]))
        checked = list(dict.fromkeys([*items[:CHECKED], by_length[0], by_length[-1]]))
        with_cache: dict[int, HeadOutput] = {}
        without: dict[int, HeadOutput] = {}
        try:
            cache = self._cache_of(self.prompts.prefix)
            for batch in _equal_lengths(checked, self.prompts, 1 << 30):
                with_cache |= self._forward(batch, cache)
                without |= self._forward(batch, None)
        except Exception as error:  # what is raised when copying, repeating or using a cache fails depends on its class
            if out_of_memory(error):
                raise
            log.info("the model's cache cannot be repeated (%s: %s); prompts are computed whole", type(error).__name__, error)
            return None
        if not agree(_stacked(with_cache, checked), _stacked(without, checked), self.model.dtype):
            log.info("continuing from the model's cache changes logits by more than rounding; prompts are computed whole")
            return None
        return cache

    def _cache_of(self, tokens: Sequence[int]) -> Any:
        import torch

        output = self.model(input_ids=torch.tensor([list(tokens)], device=self.device), use_cache=True, **self.arguments)
        return output.past_key_values


def _equal_lengths(items: Sequence[int], prompts: Prompts, batch_tokens: int) -> Iterator[list[int]]:
    """Yield items with equally long prompts together, longest first, so that if memory runs out, it does so at the start."""
    by_length: defaultdict[int, list[int]] = defaultdict(list)
    for item in items:
        by_length[len(prompts.whole(item))].append(item)
    for length in sorted(by_length, reverse=True):
        most = max(1, batch_tokens // length)
        group = by_length[length]
        yield from (group[start : start + most] for start in range(0, len(group), most))


def _stacked(rows: dict[int, HeadOutput], items: Sequence[int]) -> HeadOutput:
    return HeadOutput(*(np.concatenate(arrays) for arrays in zip(*(rows[item] for item in items), strict=True)))


def _repeated(cache: Any, n_items: int) -> Any:
    """Return a copy of a cache of one sequence for `n_items` sequences."""
    copy = deepcopy(cache)
    for layer in copy.layers:
        for name, value in list(vars(layer).items()):
            setattr(layer, name, _repeat(value, n_items))
    return copy


def _repeat(value: Any, n_items: int) -> Any:
    import torch

    if torch.is_tensor(value):
        return value.repeat_interleave(n_items, dim=0) if value.ndim > 1 and value.shape[0] == 1 else value
    if isinstance(value, dict):
        return {name: _repeat(part, n_items) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_repeat(part, n_items) for part in value)
    return value


@contextmanager
def _float32_head(model: Any) -> Iterator[None]:
    """Make the head compute in float32 inside the `with` block: logits in 16 bits tie, and a tie changes prediction sets."""
    import torch

    head = model.get_output_embeddings()
    plain = isinstance(head, torch.nn.Linear) and head.weight.is_floating_point() and "forward" not in vars(head)
    if not plain or head.weight.dtype == torch.float32:
        yield
        return

    def forward(hidden: Any) -> Any:
        parts = head.weight.split(HEAD_ROWS)
        logits = torch.cat([torch.nn.functional.linear(hidden.float(), part.float()) for part in parts], dim=-1)
        return logits if head.bias is None else logits + head.bias.float()

    head.forward = forward
    try:
        yield
    finally:
        del head.forward
