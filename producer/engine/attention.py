"""Attention over a shared prefix: the prefix's keys and values exist once and are never copied per item.

A query's attention over prefix and own tokens is a mean of two attentions, weighted by their shares of the softmax mass:
`out = own + sigmoid(lse_prefix - lse_own) * (prefix - own)`. Copying the prefix before every item's keys, as a cache does, was
3 MB an item and layer for SmolLM2 with 400 shared tokens. Where no kernel returns the log-sum-exp the prefix is put before the keys.
The kernels are those that torch's own context parallelism merges in this way (torch.distributed, `_SDPAMerger`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from schemas.errors import HedgemarkError

NAME = "hedgemark_shared_prefix"


@dataclass
class SharedPrefix:
    """What one layer knows of the tokens before a slab's own.

    keys_values : (1, head, token, width) each, or None where there are no tokens before.
    recording   : whether the slab is part of the prefix itself; its keys and values are then put behind those before it.
    touched     : set by attention; a layer that never sets it did not pass this object on.
    """

    keys_values: tuple[Any, Any] | None = None
    recording: bool = False
    touched: bool = False


@contextmanager
def own_attention(model: Any) -> Iterator[None]:
    """Within it the model's layers attend by this file."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    before = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before


def attend(  # noqa: PLR0913, PLR0917  # the signature is transformers'
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None, shared: Any = None, **_: Any
) -> tuple[Any, None]:
    """Return (item, token, head, width) outputs and no weights.

    query, key, value : (item, head, token, width), own tokens only; fewer key heads than query heads are repeated.
    attention_mask    : additive over prefix and own tokens, or None for plain causal order.
    shared            : the prefix to record into or to attend to, or None.
    """
    before = None
    if shared is not None:
        shared.touched = True
        before = shared.keys_values
        if shared.recording:
            shared.keys_values = (key, value) if before is None else _joined(before, (key, value))
    if before is None:
        return _plain(query, key, value, attention_mask, scaling), None
    return _with_prefix(query, key, value, attention_mask, scaling, before), None


def check_touched(shared: SharedPrefix, layer: Any) -> None:
    """Raise HedgemarkError where a layer answered without looking at the prefix."""
    if not shared.touched:
        raise HedgemarkError(f"{type(layer).__name__} keeps attention arguments to itself; items would be answered without demonstrations")


def can_merge(hidden: Any, head_dim: int) -> bool:
    """Return whether there is a kernel that returns the log-sum-exp, for these hidden states' device and dtype and heads so wide."""
    return merges_on(hidden.device, hidden.dtype, head_dim)


def merges_on(device: Any, dtype: Any, head_dim: int) -> bool:
    """Return whether a device has a kernel that returns the log-sum-exp in this dtype for heads so wide."""
    import torch

    if torch.device(device).type == "cpu":
        return True
    takes = dtype in (torch.float16, torch.bfloat16) and head_dim % 8 == 0 and head_dim <= 256  # FlashAttention 2
    flash = torch.device(device).type == "cuda" and not torch.version.hip and torch.backends.cuda.is_flash_attention_available()
    return takes and flash and torch.cuda.get_device_capability(device) >= (8, 0)


def _with_prefix(  # noqa: PLR0913, PLR0917  # what attention is made of
    query: Any, key: Any, value: Any, mask: Any, scaling: float | None, prefix: tuple[Any, Any]
) -> Any:
    if mask is None:
        return _merged(query, key, value, scaling, prefix)
    return _plain(query, *_joined([tensor.expand(len(key), -1, -1, -1) for tensor in prefix], (key, value)), mask, scaling)


def _merged(query: Any, key: Any, value: Any, scaling: float | None, prefix: tuple[Any, Any]) -> Any:
    import torch

    groups = query.shape[1] // key.shape[1]
    prefix_out, prefix_lse = _over_prefix(query, prefix, groups, scaling)
    own_out, own_lse = _flash(query, _repeat(key, groups), _repeat(value, groups), True, scaling)
    weight = torch.sigmoid(prefix_lse - own_lse).to(query.dtype)
    return torch.lerp(own_out, prefix_out, weight[..., None]).transpose(1, 2).contiguous()


def _over_prefix(query: Any, prefix: tuple[Any, Any], groups: int, scaling: float | None) -> tuple[Any, Any]:
    """Return attention over the prefix alone, where order does not matter: queries that share a key head stand behind each other."""
    n_items, n_heads, n_tokens, width = query.shape
    stacked = query.reshape(n_items, n_heads // groups, groups * n_tokens, width)
    keys, values = (tensor.expand(n_items, -1, -1, -1) for tensor in prefix)
    out, log_sum_exp = _flash(stacked, keys, values, False, scaling)
    return out.reshape(query.shape), log_sum_exp.reshape(n_items, n_heads, n_tokens)


def _flash(query: Any, key: Any, value: Any, causal: bool, scaling: float | None) -> tuple[Any, Any]:
    """Return outputs (item, head, token, width) and natural log-sum-exps (item, head, token)."""
    import torch

    aten = torch.ops.aten
    on_cpu = query.device.type == "cpu"
    kernel = aten._scaled_dot_product_flash_attention_for_cpu if on_cpu else aten._scaled_dot_product_flash_attention
    out, log_sum_exp, *_ = kernel(query, key, value, 0.0, causal, scale=scaling)
    return out, log_sum_exp


def _plain(query: Any, key: Any, value: Any, mask: Any, scaling: float | None) -> Any:
    import torch

    groups = query.shape[1] // key.shape[1]
    out = torch.nn.functional.scaled_dot_product_attention(
        query, _repeat(key, groups), _repeat(value, groups), attn_mask=mask, is_causal=mask is None, scale=scaling
    )
    return out.transpose(1, 2).contiguous()


def _joined(before: Sequence[Any], own: Sequence[Any]) -> tuple[Any, Any]:
    """Return keys and values of the tokens before and of the own ones."""
    import torch

    keys, values = (torch.cat(pair, dim=2) for pair in zip(before, own, strict=True))
    return keys, values


def _repeat(tensor: Any, groups: int) -> Any:
    return tensor if groups == 1 else tensor.repeat_interleave(groups, dim=1)
