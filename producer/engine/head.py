"""The head: from each item's last hidden state to option logits, log-sum-exp and most likely token.

In: hidden states (item, width).  Out: arrays by item. Logits are computed in float32 whatever the model's dtype: in bfloat16 two options
tie in up to a third of items, and a tie changes prediction sets.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from producer.engine.skeleton import Skeleton

ITEMS_AT_ONCE = 512  # with 16,384 rows of the head at a time, 34 MB of logits


class HeadOutput(NamedTuple):
    """logits (item, option) float32; logsumexp (item,) float32 over the vocabulary; top_token (item,) int32."""

    logits: NDArray[np.float32]
    logsumexp: NDArray[np.float32]
    top_token: NDArray[np.int32]


def read_head(skeleton: Skeleton, hidden: Any, device: str, option_ids: Sequence[int], rows: int) -> HeadOutput:
    """Return every item's option logits, log-sum-exp over the vocabulary and most likely token.

    hidden : (item, width) before the final norm, on any device; these and the head's weights are copied to `device` in parts.
    rows   : rows of the head (tokens of the vocabulary) that are multiplied at a time.
    """
    normed = (skeleton.norm(chunk.to(device)) for chunk in hidden.split(ITEMS_AT_ONCE))
    parts = [_read(skeleton, chunk, option_ids, rows) for chunk in normed]
    return HeadOutput(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def in_order(parts: Sequence[tuple[Sequence[int], HeadOutput]]) -> HeadOutput:
    """Return the answers of all items in the order of their numbers.

    parts : numbers of items and their answers, every item once.
    """
    order = np.argsort(np.concatenate([np.array(items, np.intp) for items, _ in parts]))
    return HeadOutput(*(np.concatenate(arrays)[order] for arrays in zip(*(output for _, output in parts), strict=True)))


def _read(skeleton: Skeleton, hidden: Any, option_ids: Sequence[int], rows: int) -> HeadOutput:
    import torch

    hidden = hidden.float()
    total = torch.full((len(hidden),), -torch.inf, device=hidden.device)
    best, top = total.clone(), torch.zeros(len(hidden), dtype=torch.int32, device=hidden.device)
    for start in range(0, skeleton.head.weight.shape[0], rows):
        logits = _product(skeleton, hidden, slice(start, start + rows))
        total = torch.logaddexp(total, logits.logsumexp(1))
        highest, where = logits.max(1)
        top = torch.where(highest > best, where.int() + start, top)
        best = torch.maximum(best, highest)
    options = _product(skeleton, hidden, list(option_ids))
    return HeadOutput(options.cpu().numpy(), total.cpu().numpy(), top.cpu().numpy())


def _product(skeleton: Skeleton, hidden: Any, rows: Any) -> Any:
    import torch

    head = skeleton.head
    bias = None if head.bias is None else head.bias[rows].to(hidden.device).float()
    return skeleton.finish(torch.nn.functional.linear(hidden, head.weight[rows].to(hidden.device).float(), bias))
