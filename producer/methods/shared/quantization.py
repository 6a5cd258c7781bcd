"""What all quantizing methods share: accepted levels, llm-compressor's scheme, and simulated rounding.

Weight-only methods use an asymmetric grid per group or row, as GPTQ and AWQ do; methods that also quantize activations use a symmetric grid
per row and round activations per token, as SmoothQuant and QuaRot do. Embeddings, head and router are not quantized.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from producer.methods.shared.architectures import LLAMA_MODELS, largest_group, other_layers, undivided, unknown_architecture
from producer.methods.shared.contract import Job, Method
from producer.methods.shared.grid import is_symmetric, verify_grid
from producer.methods.shared.linear_layers import kept_layers, target_layers
from producer.methods.shared.llm_compressor import oneshot
from producer.methods.shared.number_formats import canonical_level, format_of, preset_scheme, round_inputs, wide
from schemas.errors import PostConditionError
from schemas.levels import FULL_BITS, Level

MAX_BITS = 8
UNQUANTIZED = ["embed_tokens", "lm_head", "router"]
# The range of a group's or row's grid: shares 1, 99/100, ... above 1 - max_shrink of its weights' own range are tried, and the one is taken
# for which the sum of |rounded - weight|^norm is smallest. These are the defaults of GPTQ's authors, whose search QuaRot's use.
CLIP_SEARCH = {"grid": 100, "max_shrink": 0.8, "norm": 2.4}
WEIGHT_LEVELS = "w2a16 to w8a16, with -gN (N weights share a scale) or -channel (a row does)"
FORMAT_LEVELS = "w2a16 to w8a16, with -gN or -channel; w8a8-fp8[-static|-block], w4afp8, nvfp4[a16], mxfp4[a16], mxfp8[a16]"
ACTIVATION_LEVELS = "w8a8, w6a6, w4a4 (2 to 8 bits each), weights per row or -gN"


def accepts_weights(level: Level) -> str:
    """Return why a weight-only method cannot take a level, or ""."""
    if level.kind != "quantization":
        return "it states no number of bits"
    if level.activation_bits != FULL_BITS:
        return f"it quantizes weights only, so activations keep {FULL_BITS} bits (smoothquant, quarot and spinquant quantize both)"
    return "" if level.weight_bits <= MAX_BITS else f"weights need 2 to {MAX_BITS} bits"


def accepts_formats(level: Level) -> str:
    """Return why a method that rounds to grids of integers and to number formats cannot take a level, or ""."""
    return "" if format_of(level) else accepts_weights(level)


def calibrated(level: Level) -> bool:
    """Return whether a level fixes the scale of activations beforehand, which takes compression data."""
    number_format = format_of(level)
    return number_format is not None and number_format.calibrated


def accepts_activations(level: Level) -> str:
    """Return why a weight-and-activation method cannot take a level, or ""."""
    if level.kind != "quantization":
        return "it states no number of bits"
    if max(level.weight_bits, level.activation_bits) > MAX_BITS:
        return f"it quantizes weights and activations, to 2 to {MAX_BITS} bits each"
    return ""


def fits_groups(config: Any, level: Level) -> str:
    """Return why a model cannot be quantized to a level (other layers than linear ones, a group size that does not divide one), or ""."""
    number_format = format_of(level)
    group = number_format.group if number_format else level.group_size
    return unknown_architecture(config) or (undivided(config, group) if group else "")


def fits_scaling(config: Any, level: Level) -> str:
    """Return why a method that scales norms against linear layers cannot quantize a model at a level, or ""."""
    return other_layers(config) or fits_groups(config, level)


def quantization_settings(level: Level) -> dict[str, Any]:
    """Return the settings that every quantized run records."""
    if number_format := format_of(level):
        return {"scheme": number_format.preset, "weight_scale": "minmax", "kept": UNQUANTIZED, "kv_cache_bits": FULL_BITS}
    weights = {"weight_grid": "symmetric" if is_symmetric(level) else "asymmetric", "weight_scale": "minmax", "kept": UNQUANTIZED}
    activations = {"activations": "symmetric per token, dynamic", "kv_cache_bits": FULL_BITS}
    return weights | (activations if is_symmetric(level) else {})


def scheme(model: Any, level: Level, weight_clip: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the llm-compressor arguments for quantizing every target layer of a model to a level.

    weight_clip : how a smaller range than that of the weights is searched, see `CLIP_SEARCH`; none if it is empty.
    """
    from compressed_tensors.quantization import QuantizationScheme  # type: ignore[import-untyped]

    if number_format := format_of(level):
        return {"config_groups": {"group_0": preset_scheme(number_format)}, "ignore": kept_layers(model)}
    groups = {"group_0": QuantizationScheme(targets=["Linear"], weights=weight_grid(level, weight_clip))}
    return {"config_groups": groups, "ignore": kept_layers(model)}


def weight_grid(level: Level, weight_clip: Mapping[str, Any] | None = None) -> Any:
    """Return the library's description of the grid of integers to which a level rounds weights."""
    from compressed_tensors.quantization import QuantizationArgs

    search = {"maxshrink": weight_clip["max_shrink"], "grid": weight_clip["grid"], "norm": weight_clip["norm"]} if weight_clip else {}
    return QuantizationArgs(
        num_bits=level.weight_bits,
        type="int",
        symmetric=is_symmetric(level),
        strategy="group" if level.group_size else "channel",
        group_size=level.group_size,
        observer="memoryless_mse" if search else "memoryless_minmax",
        observer_kwargs=search | {"patience": search["grid"]} if search else {},
    )


def rounded_weight(weight: Any, level: Level) -> Any:
    """Return a weight, (row, column), rounded to a level's grid between the smallest and the largest weight of every group."""
    from compressed_tensors.quantization import fake_quantize
    from compressed_tensors.quantization.utils import calculate_qparams  # type: ignore[import-untyped]

    groups, grid = weight.unflatten(-1, (-1, level.group_size or weight.shape[1])), weight_grid(level)
    return fake_quantize(weight, *calculate_qparams(groups.amin(-1), groups.amax(-1), grid), grid)


def quantize(model: Any, recipe: Callable[[], Sequence[Any]], job: Job, activation_clip: float = 1.0) -> Any:
    """Return the model quantized by a recipe of llm-compressor modifiers, as `simulate_rounding` leaves it."""
    return simulate_rounding(oneshot(model, recipe, job.data, job.device, job.finished), job.level, activation_clip)


def simulate_rounding(model: Any, level: Level, activation_clip: float = 1.0) -> Any:
    """Return the model with its quantized layers as ordinary ones that hold rounded weights, see `simulate_layers`."""
    simulate_layers(target_layers(model), level, activation_clip)
    return model


def simulate_layers(layers: Mapping[str, Any], level: Level, activation_clip: float = 1.0) -> None:
    """Replace the weights of every quantized layer by their dequantized values, and round its inputs if the level says so.

    llm-compressor itself keeps the original weights and quantizes them in every forward pass; here the forward pass is the ordinary one.
    Scales and zero points stay as buffers for `verify_grid`.
    """
    import torch
    from compressed_tensors.quantization import fake_quantize

    for name, layer in layers.items():
        if not hasattr(layer, "weight_scale"):
            raise PostConditionError(f"layer {name} was not quantized")
        parts = {part: getattr(layer, f"weight_{part}", None) for part in ("scale", "zero_point", "global_scale")}
        with torch.no_grad():
            args, overall = layer.quantization_scheme.weights, parts["global_scale"]
            weight = fake_quantize(layer.weight.data, parts["scale"], parts["zero_point"], args, global_scale=overall)
            layer.weight.data = weight.to(layer.weight.dtype)
        for part, value in parts.items():
            if value is not None:
                delattr(layer, f"weight_{part}")
                layer.register_buffer(f"weight_{part}", value.detach())
        layer.__dict__.pop("forward", None)
        if format_of(level):
            layer.weight_format = args
            round_inputs(layer)
        for attribute in ("quantization_scheme", "quantization_status", "quantization_enabled"):
            layer.__dict__.pop(attribute, None)
        if level.activation_bits < FULL_BITS:
            layer.register_forward_pre_hook(RoundInput(level.activation_bits, activation_clip))


class RoundInput:
    """Forward pre-hook: round a layer's input to `bits`, symmetric, with one scale per token computed from the token itself.

    clip : share of a token's largest magnitude that the largest step reaches; values beyond it are clipped.

    Source: Xiao et al. 2023 (SmoothQuant, arXiv:2211.10438) equation 1: scale = max|x| / (2^(bits-1) - 1); Ashkboos et al. 2024 (QuaRot,
    arXiv:2404.00456) section 5 for the clipping, to the steps from -2^(bits-1) to 2^(bits-1) - 1.
    """

    def __init__(self, bits: int, clip: float = 1.0) -> None:
        self.largest, self.clip = 2 ** (bits - 1) - 1, clip

    def __call__(self, layer: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the layer's arguments with the first of them, (..., channel), rounded."""
        x = wide(arguments[0])
        scale = self.scale(x)
        steps = (x / scale).round().clamp(-self.largest - 1, self.largest)
        return ((steps * scale).to(arguments[0].dtype), *arguments[1:])

    def scale(self, x: Any) -> Any:
        """Return the step size of every token, (..., 1)."""
        return x.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) * self.clip / self.largest


WEIGHT_ONLY = partial(
    Method,
    kind="weight-only",
    default_level="w4a16-g128",
    levels=WEIGHT_LEVELS,
    accepts=accepts_weights,
    fits=fits_groups,
    verify=verify_grid,
    group_for=largest_group,
)
ANY_FORMAT = partial(
    Method,
    kind="weight-only, or a number format, simulated",
    default_level="w4a16-g128",
    levels=FORMAT_LEVELS,
    accepts=accepts_formats,
    fits=fits_groups,
    verify=verify_grid,
    group_for=largest_group,
    level_of=lambda config, level: canonical_level(level),
)
WEIGHTS_AND_ACTIVATIONS = partial(
    Method,
    kind="weight + activation, simulated",
    levels=ACTIVATION_LEVELS,
    accepts=accepts_activations,
    fits=fits_scaling,
    models=LLAMA_MODELS,
    verify=verify_grid,
)
