"""Which models a method can compress, and the shapes of their linear layers, from the config alone.

In: a Hugging Face config.  Out: names of layers (without their number) and shapes; no weight is read: transformers builds the model without
memory for its weights. Methods that change single weights do any model whose decoder layers are made of linear layers. Those that move
numbers from one layer into another (`LLAMA_LAYERS`) need to know what stands between the two.
"""

import math
import re
from typing import Any, NamedTuple

from producer.models.embedded import EmbeddedConfig
from producer.models.model_class import model_class
from producer.models.stored_as import quantization

MODELS = "any whose decoder layers are made of linear layers"
# Norm, attention with four projections, norm, gated MLP or experts that are gated MLPs, and nothing else but additions.
LLAMA_LAYERS = (
    "llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "cwm", "ernie4_5", "helium", "hunyuan_v1_dense", "ministral", "ministral3",
    "seed_oss", "smollm3",
)  # fmt: skip
LLAMA_MODELS = "those with Llama's layers (docs/models.md)"
PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")  # in the order in which transformers builds them
LEAST_REACHED = 0.9  # of the numbers in the decoder layers' matrices; routers and convolutions are the rest
_KNOWN: dict[str, "Layers"] = {}


class Shape(NamedTuple):
    """Rows (outputs) and columns (inputs) of a linear layer's weight."""

    rows: int
    columns: int


class Layers(NamedTuple):
    """shapes : of every kind of linear layer in the decoder layers; problem : why they cannot be compressed, or ""."""

    shapes: dict[str, Shape]
    problem: str


def unknown_architecture(config: Any) -> str:
    """Return why no method can compress this model, or ""."""
    return not_dense(config) or _layers(config).problem


def other_layers(config: Any) -> str:
    """Return why a method that moves numbers between layers cannot compress this model, or ""."""
    if reason := not_dense(config):
        return reason
    kind = config.model_type
    return "" if kind in LLAMA_LAYERS else f"its model type is {kind!r}, and this method knows the layers of {', '.join(LLAMA_LAYERS)}"


def not_dense(config: Any) -> str:
    """Return why a model's weights are not dense, or ""."""
    stored = quantization(config).format
    return "" if not stored else f"its weights are already quantized ({stored}); run it unchanged with --method checkpoint"


def linear_shapes(config: Any) -> dict[str, Shape]:
    """Return the shape of every kind of linear layer in the decoder layers but routers, such as mlp.experts.*.down_proj."""
    return _layers(config).shapes


def is_moe(config: Any) -> bool:
    """Return whether the model is a mixture of experts."""
    return any(".experts.*." in name for name in linear_shapes(config))


def out_of_reach(share: float, missed: list[str]) -> str:
    """Return a sentence that names the matrices that are no linear layers."""
    names = list(dict.fromkeys(layer_kind(name) for name in missed))
    more = f" and {len(names) - 3} other kinds" if len(names) > 3 else ""
    what = f"only {share:.0%} of the numbers in its decoder layers' matrices are in linear layers"
    return f"{what}; out of reach: {', '.join(names[:3])}{more}"


def largest_group(config: Any, most: int) -> int:
    """Return the largest number of columns, up to `most`, that divides every linear layer; `most` for an unknown model type."""
    if unknown_architecture(config):
        return most
    common = _common_divisor(config)
    return max(size for size in range(1, most + 1) if common % size == 0)


def undivided(config: Any, size: int) -> str:
    """Return "" if `size` divides the columns of all layers, else an explanation with a layer it does not divide and the sizes that fit."""
    shapes = linear_shapes(config)
    wrong = {name: shape.columns for name, shape in shapes.items() if shape.columns % size}
    if not wrong:
        return ""
    name, columns = next(iter(wrong.items()))
    common = _common_divisor(config)
    fitting = [divisor for divisor in range(2, common + 1) if common % divisor == 0]
    more = f" (and {len(wrong) - 1} other kinds of layer)" if len(wrong) > 1 else ""
    return f"{size} does not divide the {columns} columns of {name}{more}; sizes that divide every layer: {', '.join(map(str, fitting))}"


def _common_divisor(config: Any) -> int:
    """Return the largest number that divides the columns of every linear layer."""
    return math.gcd(*(shape.columns for shape in linear_shapes(config).values()))


def _layers(config: Any) -> Layers:
    """Return the layers of a config's model; a config is asked about many times, at every level of every method."""
    if isinstance(config, EmbeddedConfig):
        return Layers(_stored_shapes(config), "")
    key = config.to_json_string(use_diff=False)
    if key not in _KNOWN:
        _KNOWN[key] = _built(config)
    return _KNOWN[key]


def _stored_shapes(config: EmbeddedConfig) -> dict[str, Shape]:
    """Return the shapes of an embedded model's linear layers, which are stored under the names that they have here."""
    kinds = {layer_kind(name.removesuffix(".weight")): shape for name, shape in config.shapes.items() if ".layers." in name}
    return {kind: Shape(*kinds[kind]) for part in PROJECTIONS for kind in kinds if kind.endswith(f".{part}_proj")}


def _built(config: Any) -> Layers:
    """Return the layers of a config's model, which is built on the meta device, where weights have shapes only."""
    import torch

    from producer.methods.shared.linear_layers import fused_experts, reached, target_layers
    from producer.methods.shared.make_linear import replace_relatives

    try:
        with torch.device("meta"):
            model = model_class(config).from_config(config)
            replace_relatives(model)
    except Exception as error:  # whatever a config of another type makes transformers raise
        return Layers({}, f"its model type is {config.model_type!r}, which transformers cannot build ({type(error).__name__})")
    shapes = {layer_kind(name): Shape(*module.weight.shape) for name, module in target_layers(model).items()}
    for name, module in fused_experts(model).items():
        transposed = getattr(module, "is_transposed", False)
        rows, columns = module.down_proj.shape[:0:-1] if transposed else module.down_proj.shape[1:]
        shapes |= {
            f"{layer_kind(name)}.*.{part}_proj": Shape(columns, rows) for part in ("gate", "up") if part == "up" or _has_gate(module)
        }
        shapes[f"{layer_kind(name)}.*.down_proj"] = Shape(rows, columns)
    share, missed = reached(model)
    return Layers(shapes, "" if share >= LEAST_REACHED else out_of_reach(share, missed))


def _has_gate(module: Any) -> bool:
    return getattr(module, "gate_up_proj", None) is not None


def layer_kind(name: str) -> str:
    """Return a layer's name behind its decoder layer's number, further numbers as stars: model.layers.3.mlp.up_proj -> mlp.up_proj."""
    return re.sub(r"\.\d+(?=\.|$)", ".*", re.split(r"\.\d+\.", name, maxsplit=1)[-1])
