"""A decoder taken apart: embedding, layers, final norm and head, so that the engine decides what runs when.

In: a model.  Out: its parts, with the scales and caps that some families put between them. A model without these parts is an error here;
one that computes anything else between them is detected by comparing its logits (`producer.engine.admission`).
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from schemas.errors import HedgemarkError

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "head_dim")


class Skeleton(NamedTuple):
    """The parts of a decoder.

    embed    : the table of token embeddings, (token, width).
    scale    : hidden states from the table -> hidden states that enter the first layer.
    layers   : the decoder layers.
    windows  : how many tokens back each layer attends, None for all.
    rotaries : each layer's (hidden states, positions) -> rotary embeddings.
    norm     : the final norm.
    head     : the linear layer from hidden states to logits.
    finish   : the head's logits -> the model's logits.
    """

    embed: Any
    scale: Callable[[Any], Any]
    layers: Any
    windows: tuple[int | None, ...]
    rotaries: tuple[Callable[..., Any], ...]
    norm: Any
    head: Any
    finish: Callable[[Any], Any]


def take_apart(model: Any) -> Skeleton:
    """Return the parts of a model, compressed or not. Raises HedgemarkError if one of the parts is missing."""
    body, config = getattr(model, "model", None), model.config
    parts: list[Any] = [getattr(body, name, None) for name in ("embed_tokens", "layers", "rotary_emb", "norm")]
    head = getattr(model, "lm_head", None)
    if any(part is None for part in (*parts, head)) or not all(map(_has_projections, parts[1])):
        raise HedgemarkError(f"a model of type {config.model_type!r} is not made of embedding, decoder layers, norm and head")
    embed, layers, rotary, norm = parts
    kinds = setting(config, "layer_types") or ["sliding_attention"] * len(layers)
    return Skeleton(
        embed=embed,
        scale=partial(_scaled, embed, config),
        layers=layers,
        windows=_windows(config, kinds, len(layers)),
        rotaries=_rotaries(rotary, kinds, len(layers)),
        norm=norm,
        head=head,
        finish=partial(_finished, config),
    )


def setting(config: Any, name: str) -> Any:
    """Return a setting that the model's class has, else None: a file may state the sliding window of a family whose layers read none."""
    return getattr(config, name, None) if name in type(config).__dataclass_fields__ else None


def _has_projections(layer: Any) -> bool:
    attention = getattr(layer, "self_attn", None)
    return all(hasattr(attention, name) for name in PROJECTIONS)


def _scaled(embed: Any, config: Any, hidden: Any) -> Any:
    """Return embeddings as they enter the first layer: Gemma's embedding has a scale of its own, Granite has one in its config."""
    if hasattr(embed, "embed_scale"):
        import torch

        hidden = hidden * torch.as_tensor(embed.embed_scale, device=hidden.device).to(hidden.dtype)
    multiplier = setting(config, "embedding_multiplier")
    return hidden if multiplier is None else hidden * multiplier


def _finished(config: Any, logits: Any) -> Any:
    """Return logits as the model gives them: Cohere multiplies, Granite divides, Gemma caps."""
    scale, divisor, cap = (setting(config, name) for name in ("logit_scale", "logits_scaling", "final_logit_softcapping"))
    logits = logits if scale is None else logits * scale
    logits = logits if divisor is None else logits / divisor
    return logits if cap is None else cap * (logits / cap).tanh()


def _windows(config: Any, kinds: list[str], n_layers: int) -> tuple[int | None, ...]:
    window = setting(config, "sliding_window")
    if window is None or setting(config, "use_sliding_window") is False:
        return (None,) * n_layers
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def _rotaries(rotary: Any, kinds: list[str], n_layers: int) -> tuple[Callable[..., Any], ...]:
    """Return every layer's rotary embeddings; some families have one kind for each type of layer."""
    if "layer_type" in inspect.signature(rotary.forward).parameters and isinstance(getattr(rotary, "rope_type", None), dict):
        return tuple(partial(rotary, layer_type=kind) for kind in kinds)
    return (rotary,) * n_layers
