"""The model types that methods can compress, and the shapes of their linear layers, read from the config alone.

In: a Hugging Face config.  Out: layer names (without the layer's number) and shapes; no weight is read.
All these types have the decoder layers of Llama: query, key, value and output projections, and a gated MLP or experts that are gated MLPs.
"""

import math
from typing import Any, NamedTuple

from producer.models.stored_as import quantization

ARCHITECTURES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "qwen3_moe": "Qwen3-MoE"}
MODELS = ", ".join(ARCHITECTURES.values())


class Shape(NamedTuple):
    """Rows (outputs) and columns (inputs) of a linear layer's weight."""

    rows: int
    columns: int


def unknown_architecture(config: Any) -> str:
    """Return why no method can compress this model, or ""."""
    if reason := not_dense(config):
        return reason
    model_type = getattr(config, "model_type", None)
    return "" if model_type in ARCHITECTURES else f"its model type is {model_type!r}; methods compress {', '.join(ARCHITECTURES)}"


def not_dense(config: Any) -> str:
    """Return why a model's weights are not dense, or ""."""
    stored = quantization(config).format
    return "" if not stored else f"its weights are already quantized ({stored}); run it unchanged with --method checkpoint"


def linear_shapes(config: Any) -> dict[str, Shape]:
    """Return the shape of every kind of linear layer in the decoder layers, except routers."""
    hidden = config.hidden_size
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    shapes = {
        "self_attn.q_proj": Shape(queries, hidden),
        "self_attn.k_proj": Shape(keys, hidden),
        "self_attn.v_proj": Shape(keys, hidden),
        "self_attn.o_proj": Shape(hidden, queries),
    }
    experts = [("mlp.experts.*", config.moe_intermediate_size)] if is_moe(config) else []
    dense = [("mlp", config.intermediate_size)] if not is_moe(config) or has_dense_layers(config) else []
    for name, width in [*dense, *experts]:
        shapes[f"{name}.gate_proj"] = shapes[f"{name}.up_proj"] = Shape(width, hidden)
        shapes[f"{name}.down_proj"] = Shape(hidden, width)
    return shapes


def is_moe(config: Any) -> bool:
    """Return whether the model is a mixture of experts."""
    return bool(config.model_type == "qwen3_moe")


def has_dense_layers(config: Any) -> bool:
    """Return whether a mixture of experts also has layers with an ordinary MLP."""
    return bool(getattr(config, "mlp_only_layers", None)) or getattr(config, "decoder_sparse_step", 1) > 1


def largest_group(config: Any, most: int) -> int:
    """Return the largest number of columns, up to `most`, that divides every linear layer; `most` for an unknown model type."""
    if unknown_architecture(config):
        return most
    common = math.gcd(*(shape.columns for shape in linear_shapes(config).values()))
    return max(size for size in range(1, most + 1) if common % size == 0)


def undivided(config: Any, size: int) -> str:
    """Return "" if `size` divides the columns of all layers, else an explanation with a layer it does not divide and the sizes that fit."""
    shapes = linear_shapes(config)
    wrong = {name: shape.columns for name, shape in shapes.items() if shape.columns % size}
    if not wrong:
        return ""
    name, columns = next(iter(wrong.items()))
    fitting = [d for d in range(2, min(s.columns for s in shapes.values()) + 1) if all(s.columns % d == 0 for s in shapes.values())]
    more = f" (and {len(wrong) - 1} other kinds of layer)" if len(wrong) > 1 else ""
    return f"{size} does not divide the {columns} columns of {name}{more}; sizes that divide every layer: {', '.join(map(str, fitting))}"
