"""bitsandbytes: NF4 and FP4 (QLoRA) and int8 (LLM.int8) as transformers loads them with `load_in_4bit` and `load_in_8bit`.

The library makes the codes and the scales; here they are turned back into numbers, so that the forward pass is the ordinary one.
In 8 bits the library rounds activations too, but for outliers: on a GPU it leaves whole columns of a batch as they are where any token is
at or beyond the threshold, and on a CPU all activations. Which columns these are depends on the other items of the batch, so here single
values are left as they are, on any device: for one token on its own that is what the library does on a GPU.
Sources: Dettmers et al. 2023, arXiv:2305.14314 (NF4, double quantization); Dettmers et al. 2022, arXiv:2208.07339 (LLM.int8).
"""

import math
from typing import Any

from producer.methods.shared.architectures import unknown_architecture
from producer.methods.shared.contract import NOTHING, Job, Method
from producer.methods.shared.grid import largest_in_ulps, off_grid, weight_sizes
from producer.methods.shared.linear_layers import target_layers
from producer.methods.shared.method_options import Option, number, words
from producer.methods.shared.number_formats import wide
from producer.methods.shared.quantization import UNQUANTIZED
from producer.models.bitsandbytes_weights import four_bit_values
from schemas.errors import PostConditionError
from schemas.levels import Level, parse_level

FOUR_BITS = ("nf4", "fp4")
LEVELS = (*FOUR_BITS, "int8")
BLOCK = 64  # weights in a row of the file that share a scale; they may go over the end of a matrix row
SCALES_AT_ONCE = 256  # scales that share a scale, with double quantization
FLOAT32_BITS = 32
THRESHOLD = 6.0  # the paper's, section 3.2
LARGEST = 127
MOST_IN_FLOAT16 = 65504.0
INT8 = parse_level("w8a8")  # the grid of the weights: steps of a row's largest magnitude / 127


def compress(model: Any, job: Job) -> Any:
    """Return the model with the numbers that the library's codes stand for as weights of every target layer.

    Raises PostConditionError for weights that are NaN or infinite, in 8 bits also for those beyond float16, which the library goes through.
    """
    for name, layer in target_layers(model).items():
        largest = float(layer.weight.detach().abs().max())
        if not math.isfinite(largest) or (job.level.text not in FOUR_BITS and largest > MOST_IN_FLOAT16):
            raise PostConditionError(f"layer {name} has a weight of magnitude {largest:.3g}, which level {job.level.text!r} cannot hold")
        if job.level.text in FOUR_BITS:
            _round_4_bits(layer, job)
        else:
            _round_8_bits(layer, job)
            layer.register_forward_pre_hook(RoundInputButOutliers(job.settings["threshold"]))
    return model


def _round_4_bits(layer: Any, job: Job) -> None:
    from bitsandbytes import functional

    weight = layer.weight.data
    double = job.settings["double_quantization"]
    there = weight.contiguous().to(job.device or weight.device)
    codes, state = functional.quantize_4bit(there, blocksize=BLOCK, compress_statistics=double, quant_type=job.level.text)
    scales = state.absmax
    if double:
        scales = functional.dequantize_blockwise(scales, state.state2) + state.offset
    # Not by the library: on a CPU with AVX-512, 0.50 takes the wrong scales where a block goes over the end of a row.
    values = four_bit_values(codes.flatten(), state.code, scales, BLOCK, weight.numel())
    layer.weight.data = values.reshape(weight.shape).to(weight.device, weight.dtype)
    layer.register_buffer("weight_scale", scales.float().to(weight.device))
    layer.register_buffer("weight_codes", state.code.to(weight.device))


def _round_8_bits(layer: Any, job: Job) -> None:
    import torch
    from bitsandbytes import functional

    weight = layer.weight.data
    steps, largest, _ = functional.int8_vectorwise_quant(weight.to(job.device or weight.device, torch.float16))
    scale = (largest.float() / LARGEST)[:, None]
    scale[scale == 0] = 1  # of a row of zeros, whose steps the library leaves undefined
    steps = steps.float().masked_fill(largest[:, None] == 0, 0)
    layer.weight.data = (steps * scale).to(weight.device, weight.dtype)
    layer.register_buffer("weight_scale", scale.to(weight.device))


class RoundInputButOutliers:
    """Forward pre-hook: round a layer's input to 8 bits, with one scale per token, but for values at or beyond a threshold.

    Source: Dettmers et al. 2022, section 3, with outliers by token instead of by column of a batch (see the module's docstring).
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def __call__(self, layer: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the layer's arguments with the first of them, (..., channel), rounded."""
        x = wide(arguments[0])
        rounded = x.masked_fill(x.abs() >= self.threshold, 0)
        scale = rounded.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / LARGEST
        rounded = (rounded / scale).round() * scale
        return (rounded.where(x.abs() < self.threshold, x).to(arguments[0].dtype), *arguments[1:])


def verify(model: Any, job: Job) -> dict[str, Any]:
    """Return the effective bits per weight and the largest distance of a weight from its format's values, in units of its block's scale.

    Raises PostConditionError if a weight is off by more than the precision of its dtype.
    """
    worst, bits, weights = 0.0, 0.0, 0
    for name, layer in target_layers(model).items():
        if job.level.text in FOUR_BITS:
            distance, ulps = _off_codes(layer)
            n_bits = 4
        else:
            distance, ulps = off_grid(layer.weight, layer.weight_scale, layer.weight_scale.new_zeros(1, 1), INT8)
            n_bits = 8
        if not ulps <= 1:
            raise PostConditionError(f"layer {name} at level {job.level.text!r} lies {distance:.3g} units off the values of its format")
        worst = max(worst, distance)
        bits += layer.weight.numel() * n_bits + _scale_bits(layer.weight_scale.numel(), job)
        weights += layer.weight.numel()
    return weight_sizes(model, bits, weights) | {"units_off_format": worst}


def _off_codes(layer: Any) -> tuple[float, float]:
    """Return the largest distance of a weight from the nearest of the 16 values, in units of its block's scale and of its precision."""
    import torch

    flat = layer.weight.detach().double().flatten()
    scale = layer.weight_scale.double().repeat_interleave(BLOCK)[: len(flat)]
    units, codes = flat / scale.clamp_min(torch.finfo(torch.float64).tiny), layer.weight_codes.double().sort().values
    points = codes[torch.bucketize(units, (codes[1:] + codes[:-1]) / 2)] * scale
    gaps = (flat - points).abs()
    return float((gaps / scale.clamp_min(torch.finfo(torch.float32).tiny)).max()), largest_in_ulps(gaps, points, layer.weight.dtype)


def _scale_bits(n_scales: int, job: Job) -> int:
    """Return the bits that the scales of a matrix take in the library's files."""
    if job.level.text in FOUR_BITS and job.settings["double_quantization"]:
        return 8 * n_scales + FLOAT32_BITS * (-(-n_scales // SCALES_AT_ONCE) + 1)  # and one offset
    return FLOAT32_BITS * n_scales


def _settings_for(level: Level) -> dict[str, Any]:
    """Return the settings that a run records."""
    if level.text in FOUR_BITS:
        return {"block": BLOCK, "weight_scale": "largest |w|", "kept": UNQUANTIZED}
    return {"weight_scale": "largest |w| of a row", "activations": "symmetric per token, dynamic; outliers by token", "kept": UNQUANTIZED}


def _accepts(level: Level) -> str:
    return "" if level.text in LEVELS else f"the library has {', '.join(LEVELS)}"


METHOD = Method(
    name="bitsandbytes",
    kind="weight-only, or with activations, simulated",
    paper="Dettmers et al. 2023, arXiv:2305.14314",
    default_level="nf4",
    levels="nf4, fp4 (weights), int8 (weights, and activations but for outliers)",
    needs=NOTHING,
    library="bitsandbytes",
    compress=compress,
    settings_for=_settings_for,
    accepts=_accepts,
    fits=lambda config, level: unknown_architecture(config),
    verify=verify,
    level_of=lambda config, level: parse_level(level.text.lower()),
    unsavable="the library has a file format of its own, which is read (--method checkpoint) and not written",
    options={
        "double_quantization": Option(
            "whether the scales of 4-bit blocks are rounded to 8 bits [on, as in QLoRA; transformers' own default is off]",
            "on or off",
            words(on=True, off=False),
            lambda config, level: level.text in FOUR_BITS,
        ),
        "threshold": Option(
            "magnitude from which on int8 leaves a value of the activations as it is [6]",
            "a number from 0.01 to 1000",
            number(0.01, 1000),
            lambda config, level: None if level.text in FOUR_BITS else THRESHOLD,
        ),
    },
)
