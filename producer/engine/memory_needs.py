"""How much memory a model needs for some prompts, from its own tensors: weights, activations, prefix, and copies of the prefix.

In: a model, prompts.  Out: `MemoryNeeds`, in bytes.
The prefix's keys and values are copied for every item, and prefix and item share an explicit mask, in layers whose attention window is
shorter than a prompt, and in all layers where no kernel returns the log-sum-exp (`producer.engine.attention`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from producer.engine.attention import merges_on
from producer.engine.head import ITEMS_AT_ONCE
from producer.engine.layer_source import layer_bytes
from producer.engine.skeleton import take_apart
from producer.prompts.encode import Prompts


class LayerCopies(NamedTuple):
    """The width of a layer's heads, whether its window is shorter than a prompt, and the bytes of a copy of the prefix for one item."""

    head_dim: int
    windowed: bool
    item: int


class CopyBytes(NamedTuple):
    """Extra bytes per item and per token when the prefix is copied."""

    item: int
    token: int


@dataclass(frozen=True)
class PrefixCopies:
    """How much memory each layer needs if it has to copy the prefix.

    dtype   : dtype of the run.
    layers  : one entry per layer; empty where nothing is ever copied.
    mask    : bytes of one row of the mask, including the copy that a kernel makes of unaligned rows.
    lengths : tokens, without the prefix, of the items that use the prefix.
    """

    dtype: Any = None
    layers: Sequence[LayerCopies] = ()
    mask: int = 0
    lengths: Sequence[int] = ()

    def on(self, device: str) -> CopyBytes:
        """Return the extra bytes on a device, in the layer that copies most."""

        def copies(layer: LayerCopies) -> bool:
            return layer.windowed or bool(layer.item and not merges_on(device, self.dtype, layer.head_dim))

        item_bytes = [layer.item for layer in self.layers if copies(layer)]
        return CopyBytes(max(item_bytes, default=0), self.mask if item_bytes else 0)


@dataclass(frozen=True)
class MemoryNeeds:
    """The memory that a model needs, in bytes.

    weights, layer     : all weights, and those of the largest layer.
    activation, hidden : one token's activations within a layer, and its hidden state between two layers.
    longest            : tokens of the longest item without the prefix; it is computed even if it exceeds `batch_tokens`.
    layer_prefix       : the shared prefix in one layer: hidden states, and keys and values, twice because appending copies them.
    prefix, last       : the same with the keys and values of all layers; every item's last hidden state. Both are kept for the whole run.
    head_row           : one row of the head in float32, and its logits for ITEMS_AT_ONCE items.
    copies             : copies of the prefix; `on` adds them, for a device, to `activation` (per token) and `item` (per item).
    """

    weights: int
    layer: int
    activation: int
    hidden: int
    longest: int
    prefix: int
    layer_prefix: int
    last: int
    head_row: int
    copies: PrefixCopies = field(default_factory=PrefixCopies)
    item: int = 0

    def on(self, device: str) -> "MemoryNeeds":
        """Return the needs on a device, with the copies of the prefix that are made there."""
        extra = self.copies.on(device)
        return replace(self, item=extra.item, activation=self.activation + extra.token)


def measure_needs(model: Any, dtype: Any, prompts: Prompts) -> MemoryNeeds:
    """Return what a model needs for these prompts; weights count with their present shapes, after any pruning."""
    size, config, body = int(dtype.itemsize), model.config, model.model
    attention, width = body.layers[0].self_attn, body.embed_tokens.weight.shape[1]
    heads = sum(_rows(getattr(attention, name, None)) for name in ("q_proj", "k_proj", "v_proj"))
    within = max(_mlp_numbers(config, width), 6 * heads)  # attention and MLP are not in memory at the same time
    key_values = [sum(_rows(getattr(layer.self_attn, name, None)) for name in ("k_proj", "v_proj")) for layer in body.layers]
    return MemoryNeeds(
        weights=layer_bytes(model, dtype),
        layer=max(layer_bytes(layer, dtype) for layer in body.layers),
        activation=(4 * width + within) * size + 8 * width,  # norms compute in float32
        hidden=width * size,
        longest=max(map(len, prompts.suffixes)),
        prefix=len(prompts.prefix) * (sum(key_values) + max(key_values) + width) * size,
        layer_prefix=len(prompts.prefix) * (2 * max(key_values) + width) * size,
        last=len(prompts.suffixes) * width * size,
        head_row=4 * (width + 2 * ITEMS_AT_ONCE),
        copies=measure_copies(model, dtype, prompts),
    )


def measure_copies(model: Any, dtype: Any, prompts: Prompts) -> PrefixCopies:
    """Return how much memory each layer of a model needs for these prompts if it has to copy the prefix."""
    layers, windows = model.model.layers, take_apart(model).windows
    n_tokens = len(prompts.prefix) + max(map(len, prompts.suffixes))
    copies = [
        LayerCopies(
            head_dim=layer.self_attn.head_dim,
            windowed=window is not None and window < n_tokens,
            item=len(prompts.prefix) * _copied_numbers(layer.self_attn) * dtype.itemsize,
        )
        for layer, window in zip(layers, windows, strict=True)
    ]
    lengths = [len(suffix) for suffix, is_cut in zip(prompts.suffixes, prompts.cut, strict=True) if not is_cut]
    return PrefixCopies(dtype, copies, 2 * n_tokens * dtype.itemsize, lengths)


def tokens_that_fit(lengths: Sequence[int], each: CopyBytes, room: int) -> int:
    """Return the largest number of padded tokens for which no batch of these items can exceed `room` bytes.

    lengths : tokens of each item; the longest one is known to fit alone.
    each    : bytes per item and per token. A batch holds more items if they are short, and each has its own copy.
    """
    ascending = np.sort(np.asarray(lengths))
    fit = room // (ascending * each.token + each.item)
    scarce = fit < np.arange(1, len(fit) + 1)  # where there are more items up to this length than fit
    return int((ascending * fit)[scarce].min(initial=np.iinfo(np.int64).max))


def _rows(linear: Any) -> int:
    return 0 if linear is None else int(linear.weight.shape[0])


def _mlp_numbers(config: Any, width: int) -> int:
    """Return the numbers that one token takes within an MLP, or within the experts it is routed to and the copies made for them."""
    chosen = getattr(config, "num_experts_per_tok", None)
    if not chosen:
        return int(4 * config.intermediate_size)
    expert = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
    return int(chosen * (4 * expert + 3 * width))


def _copied_numbers(attention: Any) -> int:
    """Return the numbers in a copy of one prefix token's keys and values, repeated where several query heads share them."""
    keys, values = attention.k_proj.weight.shape[0], attention.v_proj.weight.shape[0]
    groups = attention.q_proj.weight.shape[0] // max(keys, 1)
    return int((keys + values) * (1 + groups * (groups > 1)))
