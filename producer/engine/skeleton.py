"""A decoder taken apart: embedding, layers, final norm and head, so that the engine decides what runs when.

In: a model object.  Out: its parts. Only model types whose forward pass is exactly these parts in this order are admitted; a
model that scales, caps or skips something in between would come out silently wrong.
"""

from typing import Any, NamedTuple

from schemas.errors import UsageError

KNOWN_TYPES = ("llama", "mistral", "mixtral", "olmo2", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3")

LENGTH_DEPENDENT = ("dynamic", "longrope")  # rotary embeddings that depend on how long a batch is, which a shared prefix cannot follow


class Skeleton(NamedTuple):
    """The parts of a decoder; `windows` holds each layer's attention window, None where it sees everything before it."""

    embed: Any
    layers: Any
    rotary: Any
    norm: Any
    head: Any
    windows: tuple[int | None, ...]


def check_model_type(config: Any) -> None:
    """Raise UsageError where the engine does not know the model type or its rotary embeddings; reads no weights."""
    if config.model_type not in KNOWN_TYPES:
        raise UsageError(
            f"model type {config.model_type!r} is not known to be embedding, layers, norm and head and nothing else; known: "
            f"{', '.join(KNOWN_TYPES)}; dense models of other types run with --backend vllm"
        )
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in LENGTH_DEPENDENT:
        kind = rope["rope_type"]
        raise UsageError(f"rotary embeddings of type {kind!r} depend on a prompt's length; such models run with --backend vllm")


def take_apart(model: Any) -> Skeleton:
    """Return the parts of a model of a known type, compressed or not."""
    check_model_type(model.config)
    body = model.model
    return Skeleton(body.embed_tokens, body.layers, body.rotary_emb, body.norm, model.lm_head, _windows(model.config, len(body.layers)))


def _windows(config: Any, n_layers: int) -> tuple[int | None, ...]:
    window = getattr(config, "sliding_window", None)
    if window is None or getattr(config, "use_sliding_window", True) is False:
        return (None,) * n_layers
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * n_layers
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)
