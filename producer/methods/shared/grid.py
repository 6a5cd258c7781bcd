"""The grid of quantized weights: whether it is symmetric, how many bits it takes, and the check that every weight is on it.

In: linear layers with the scales that a method left.  Out: bits, bytes and the largest distance from the grid, or PostConditionError.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from producer.methods.shared.contract import Job
from producer.methods.shared.linear_layers import target_layers
from producer.methods.shared.number_formats import format_of, nearest, scale_bits, scale_of_the_wrong_type, steps
from schemas.errors import PostConditionError
from schemas.levels import FULL_BITS, Level


def is_symmetric(level: Level) -> bool:
    """Return whether the weights' grid is symmetric about zero."""
    return level.activation_bits < FULL_BITS


def verify_grid(model: Any, job: Job, zero_bits: int = 0) -> dict[str, Any]:
    """Return the effective bits per weight and the largest distance of a weight from its grid, in steps.

    zero_bits : bits of a zero point; 0 for as many as a weight has.
    Raises PostConditionError if a weight is off its grid by more than the precision of its dtype, or if the method left no grid.
    """
    checked = check_layers(target_layers(model), job.level, zero_bits)
    return weight_sizes(model, checked.bits, checked.weights) | {checked.unit: checked.worst}


class CheckedLayers(NamedTuple):
    """Bits of some quantized layers with their scales, their number of weights, and the largest distance of a weight from its grid.

    unit : the name under which that distance is recorded.
    """

    bits: float
    weights: int
    worst: float
    unit: str


def check_layers(layers: Mapping[str, Any], level: Level, zero_bits: int = 0) -> CheckedLayers:
    """Check that every weight of some layers is on the grid of a level, see `verify_grid`."""
    if format_of(level):
        return _check_format(layers, level)
    worst, bits, weights = 0.0, 0.0, 0
    for name, layer in layers.items():
        _check_left(name, layer, "weight_scale", "weight_zero_point")
        error, in_ulps = off_grid(layer.weight, layer.weight_scale, layer.weight_zero_point, level)
        if not in_ulps <= 1:
            raise PostConditionError(f"layer {name} at level {level.text!r} is {error:.3g} steps off its {level.weight_bits}-bit grid")
        worst = max(worst, error)
        scale_bits = FULL_BITS + (0 if is_symmetric(level) else zero_bits or level.weight_bits)
        bits += layer.weight.numel() * level.weight_bits + layer.weight_scale.numel() * scale_bits
        weights += layer.weight.numel()
    return CheckedLayers(bits, weights, worst, "steps_off_grid")


def _check_format(layers: Mapping[str, Any], level: Level) -> CheckedLayers:
    """Check a number format as `check_layers` checks grids of integers, and that the format can store every scale."""
    worst, bits, weights = 0.0, 0.0, 0
    for name, layer in layers.items():
        _check_left(name, layer, "weight_scale", "weight_format")
        args, weight, overall = layer.weight_format, layer.weight.detach().double(), getattr(layer, "weight_global_scale", None)
        if scale_of_the_wrong_type(layer.weight_scale, args):
            raise PostConditionError(f"layer {name} at level {level.text!r} has scales that the format cannot store")
        unit = steps(weight, layer.weight_scale, overall, args)
        points = nearest(weight / unit, args) * unit
        gaps = (weight - points).abs()
        error, in_ulps = float((gaps / unit).max()), largest_in_ulps(gaps, points, layer.weight.dtype)
        if not in_ulps <= 1:
            raise PostConditionError(f"layer {name} at level {level.text!r} lies {error:.3g} units off the values of its format")
        worst = max(worst, error)
        bits += weight.numel() * args.num_bits + layer.weight_scale.numel() * scale_bits(args) + (0 if overall is None else 32)
        weights += weight.numel()
    return CheckedLayers(bits, weights, worst, "units_off_format")


def _check_left(name: str, layer: Any, *needed: str) -> None:
    if missing := [one for one in needed if not hasattr(layer, one)]:
        raise PostConditionError(
            f"layer {name} has no {' and no '.join(missing)}, so its grid cannot be checked; a method that does "
            "not use `quantize` registers weight_scale and weight_zero_point, (row, group) each, as buffers of every layer that it rounds"
        )


def weight_sizes(model: Any, bits: float, weights: int) -> dict[str, Any]:
    """Return effective bits and bytes of a model, from the bits of its quantized weights with their scales; others have 16 bits."""
    n_others = sum(parameter.numel() for parameter in model.parameters()) - weights
    return {"bits_per_weight": bits / weights, "quantized_weights": weights, "bytes": int(bits / 8 + n_others * FULL_BITS / 8)}


def off_grid(weight: Any, scale: Any, zero_point: Any, level: Level) -> tuple[float, float]:
    """Return the largest distance of a weight from the nearest grid point, in steps and in units of the dtype's precision there.

    weight : (row, column). scale, zero_point : (row, group); a group is a number of neighbouring columns.
    A weight on the grid is rounded to its dtype once, by at most half a unit of precision, so more than one unit means that it is off the
    grid. The distance in steps cannot show that: at 8 bits the outermost steps are as narrow as the precision of bfloat16.
    """
    groups = weight.detach().double().reshape(weight.shape[0], scale.shape[1], -1)
    step, zero = scale.double().unsqueeze(-1), zero_point.double().unsqueeze(-1)
    low = -(2 ** (level.weight_bits - 1))
    points = ((groups / step + zero).round().clamp(low, low + 2**level.weight_bits - 1) - zero) * step
    gaps = (groups - points).abs()
    return float((gaps / step).max()), largest_in_ulps(gaps, points, weight.dtype)


def largest_in_ulps(gaps: Any, points: Any, dtype: Any) -> float:
    """Return the largest gap in units of a dtype's precision at its grid point."""
    import torch

    info = torch.finfo(dtype)
    return float((gaps / (info.eps * points.abs().clamp_min(info.tiny))).max())
