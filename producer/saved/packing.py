"""Pack the quantized layers of a model as compressed-tensors does: in the format that fits their level, a config group for every level.

In: a compressed model with its level, or its recipe.  Out: the quantization settings of its config, and what its weight files hold.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from producer.methods.recipe import layers_by_level
from producer.methods.shared.architectures import layer_kind
from producer.methods.shared.linear_layers import kept_layers, target_layers
from producer.methods.shared.number_formats import format_of
from producer.methods.shared.quantization import scheme
from schemas.levels import FULL_BITS, Level


class Group(NamedTuple):
    """The layers at one level.

    scheme : as compressed-tensors describes the level, with the names or patterns that find the layers, and their format.
    layers : by name.
    """

    level: Level
    scheme: Any
    layers: Mapping[str, Any]

    def described(self) -> dict[str, Any]:
        """Return what a record says of the group, JSON-able."""
        kinds = list(dict.fromkeys(map(layer_kind, self.layers)))
        return {"level": self.level.text, "format": self.scheme.format, "layers": kinds, "matrices": len(self.layers)}


class Packing(NamedTuple):
    """How the weights of a model are packed: groups of layers, none of a model with plain weights, and the names of all other layers.

    left_out : the kinds of layers, such as mlp.down_proj, that a recipe leaves as they are; they are also among `ignore`.
    """

    groups: Sequence[Group]
    ignore: Sequence[str]
    left_out: Sequence[str] = ()

    @property
    def format(self) -> str:
        """Name of the format, "" for plain weights."""
        names = {group.scheme.format for group in self.groups}
        return names.pop() if len(names) == 1 else "mixed-precision" if names else ""

    def settings(self) -> dict[str, Any]:
        """Return the quantization settings of the config."""
        from compressed_tensors.quantization import QuantizationConfig  # type: ignore[import-untyped]

        groups = {f"group_{number}": group.scheme for number, group in enumerate(self.groups)}
        arguments = {"config_groups": groups, "format": self.format, "ignore": [*self.ignore]}
        return dict(QuantizationConfig(**arguments, quantization_status="compressed").to_dict())


def packing_of(model: Any, level: Level, recipe: Any) -> Packing:
    """Return how a model at a level is packed, or one whose layers have the levels of a recipe."""
    if recipe:
        grouped = layers_by_level(model, recipe)
        kinds = dict.fromkeys(map(layer_kind, target_layers(model)))
        chosen = {layer_kind(name) for layers in grouped.values() for name in layers}
        left_out = [kind for kind in kinds if kind not in chosen]
        groups = [
            Group(each, _scheme(model, each, [*dict.fromkeys(_pattern(layer_kind(name)) for name in layers)]), layers)
            for each, layers in grouped.items()
        ]
        return Packing(groups, [*kept_layers(model), *map(_pattern, left_out)], left_out)
    if level.kind == "quantization" or format_of(level):
        return Packing([Group(level, _scheme(model, level, ["Linear"]), target_layers(model))], kept_layers(model))
    return Packing([], [])


def rounds_integers(level: Level) -> bool:
    """Return whether activations are rounded to integers at a level."""
    return level.kind == "quantization" and level.activation_bits < FULL_BITS and not format_of(level)


def packed_tensors(model: Any, packing: Packing) -> dict[str, Any]:
    """Return what the weight files hold: the packed tensors of the quantized layers, and all other weights as they are."""
    from compressed_tensors.compressors import BaseCompressor  # type: ignore[import-untyped]

    tensors: dict[str, Any] = {}
    for group in packing.groups:
        compressor = BaseCompressor.get_value_from_registry(group.scheme.format)
        for name, layer in group.layers.items():
            parts: Mapping[str, Any] = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
            packed = compressor.compress({part: value.detach() for part, value in parts.items()}, group.scheme)
            tensors |= {f"{name}.{part}": value.contiguous() for part, value in packed.items()}
    inside = tuple(f"{name}." for group in packing.groups for name in group.layers)
    tensors |= {name: value.contiguous() for name, value in model.state_dict().items() if not name.startswith(inside or ("\0",))}
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    return tensors


def _scheme(model: Any, level: Level, targets: list[str]) -> Any:
    """Return a level as compressed-tensors describes it, for the layers that these names or patterns find."""
    import torch
    from compressed_tensors.compressors.format import infer_module_format  # type: ignore[import-untyped]
    from compressed_tensors.quantization import QuantizationArgs

    (described,) = scheme(model, level)["config_groups"].values()
    described.targets = targets
    if rounds_integers(level):
        described.input_activations = QuantizationArgs(num_bits=level.activation_bits, symmetric=True, strategy="token", dynamic=True)
    described.format = infer_module_format(torch.nn.Linear, described).value
    return described


def _pattern(kind: str) -> str:
    """Return the pattern that finds the layers of one kind, such as mlp.experts.*.down_proj, in every decoder layer, and no others."""
    return r"re:^\D*\.\d+\." + re.escape(kind).replace(r"\*", r"\d+") + "$"
