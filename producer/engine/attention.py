"""Attention over a shared prefix whose keys and values are computed once and not copied for every item.

Attention over prefix and suffix is the mean of the attention over each, weighted by their shares of the softmax mass:
`out = suffix + sigmoid(lse_prefix - lse_suffix) * (prefix - suffix)`, where lse is the log-sum-exp of the attention scores. A copy of
the prefix before every item's keys, as in a KV cache, would take 3 MB for each item and layer of SmolLM2 with 400 shared tokens. Where no
kernel returns the log-sum-exp, the prefix is copied. The kernels are those that torch's context parallelism merges in the same way
(torch.distributed, `_SDPAMerger`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from schemas.errors import HedgemarkError

NAME = "hedgemark_shared_prefix"
NOT_COMPUTED = ("softcap", "s_aux", "position_bias", "head_mask")  # not supported: a cap on scores, attention sinks, biases


@dataclass
class SharedPrefix:
    """Keys and values of the shared prefix in one layer.

    keys_values : (1, head, token, width) each, or None before the prefix was computed.
    recording   : whether the batch is part of the prefix itself; its keys and values are then appended.
    used        : set to True by attention; still False after a layer that did not pass this object on to its attention.
    """

    keys_values: tuple[Any, Any] | None = None
    recording: bool = False
    used: bool = False


@contextmanager
def shared_prefix_attention(model: Any) -> Iterator[None]:
    """Make the model's layers use the attention of this file inside the `with` block."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    before = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before


def attend(  # noqa: PLR0913, PLR0917  # the signature is transformers'
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None, shared: Any = None, **more: Any
) -> tuple[Any, None]:
    """Return the attention outputs, (item, token, head, width), and None in place of the attention weights.

    query, key, value : (item, head, token, width), without the shared prefix; in grouped-query attention there are fewer key heads
                        than query heads.
    attention_mask    : additive, over prefix and suffix; None for plain causal attention.
    shared            : the prefix to record or to attend to, or None.
    Raises HedgemarkError for an argument that changes attention in a way that is not supported here.
    """
    if unknown := [name for name in NOT_COMPUTED if more.get(name) is not None]:
        raise HedgemarkError(f"{type(module).__name__} asks for attention with {', '.join(unknown)}, which the prefill engine lacks")
    before = None
    if shared is not None:
        shared.used = True
        before = shared.keys_values
        if shared.recording:
            shared.keys_values = (key, value) if before is None else _joined(before, (key, value))
    if before is None:
        return _plain(query, key, value, attention_mask, scaling), None
    return _with_prefix(query, key, value, attention_mask, scaling, before), None


def check_used(shared: SharedPrefix, layer: Any) -> None:
    """Raise HedgemarkError if a layer ran without attending to the prefix."""
    if not shared.used:
        raise HedgemarkError(
            f"{type(layer).__name__} does not pass attention arguments on, so the items would be answered without demonstrations; "
            "please report this model"
        )


def can_merge(hidden: Any, head_dim: int) -> bool:
    """Return whether a kernel returns the log-sum-exp on these hidden states' device, in their dtype, for heads of this width."""
    return merges_on(hidden.device, hidden.dtype, head_dim)


def merges_on(device: Any, dtype: Any, head_dim: int) -> bool:
    """Return whether a kernel returns the log-sum-exp on a device, in a dtype, for heads of this width."""
    import torch

    if torch.device(device).type == "cpu":
        return True
    supported = dtype in (torch.float16, torch.bfloat16) and head_dim % 8 == 0 and head_dim <= 256  # FlashAttention 2
    flash = torch.device(device).type == "cuda" and not torch.version.hip and torch.backends.cuda.is_flash_attention_available()
    return supported and flash and torch.cuda.get_device_capability(device) >= (8, 0)


def _with_prefix(  # noqa: PLR0913, PLR0917  # the arguments of attention
    query: Any, key: Any, value: Any, mask: Any, scaling: float | None, prefix: tuple[Any, Any]
) -> Any:
    if mask is None:
        return _merged(query, key, value, scaling, prefix)
    return _plain(query, *_joined([tensor.expand(len(key), -1, -1, -1) for tensor in prefix], (key, value)), mask, scaling)


def _merged(query: Any, key: Any, value: Any, scaling: float | None, prefix: tuple[Any, Any]) -> Any:
    import torch

    groups = query.shape[1] // key.shape[1]
    prefix_out, prefix_lse = _over_prefix(query, prefix, groups, scaling)
    suffix_out, suffix_lse = _flash(query, _repeat(key, groups), _repeat(value, groups), True, scaling)
    weight = torch.sigmoid(prefix_lse - suffix_lse).to(query.dtype)
    return torch.lerp(suffix_out, prefix_out, weight[..., None]).transpose(1, 2).contiguous()


def _over_prefix(query: Any, prefix: tuple[Any, Any], groups: int, scaling: float | None) -> tuple[Any, Any]:
    """Return attention over the prefix alone, and its log-sum-exp.

    The whole prefix precedes every query, so no causal mask is needed and the query heads that share a key head are stacked as one.
    """
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


def _joined(before: Sequence[Any], after: Sequence[Any]) -> tuple[Any, Any]:
    """Return (keys, values) of earlier and later tokens, concatenated."""
    import torch

    keys, values = (torch.cat(pair, dim=2) for pair in zip(before, after, strict=True))
    return keys, values


def _repeat(tensor: Any, groups: int) -> Any:
    return tensor if groups == 1 else tensor.repeat_interleave(groups, dim=1)
