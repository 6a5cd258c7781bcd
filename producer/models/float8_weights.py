"""Dequantize weights that are stored as eight-bit floats with scales: weight = float8 * scale.

In: the tensors of a checkpoint by name.  Out: the same, with one plain `weight` for every scaled layer. There is one scale for the whole
weight, one per output, or one per block: `weight_scale_inv` for DeepSeek and Qwen, `weight_scale` for ModelOpt and FBGEMM.
Despite its name, `weight_scale_inv` is a factor and not a divisor (DeepSeek-V3, inference/kernel.py, weight_dequant).
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from producer.models.stored_as import FP8, MODELOPT, Quantization
from schemas.errors import HedgemarkError, UsageError

SCALES = ("weight_scale", "weight_scale_inv")
# Scales with which kernels round activations and the key/value cache. Those of the cache, and bounds of scales that are computed from the
# inputs, are not applied here; the run records that (stored_as.not_simulated).
INPUT_SCALES = ("input_scale", "activation_scale")  # one for all inputs of a layer; the second name is that of transformers
CACHE_SCALES = (".k_scale", ".v_scale", ".kv_scale")
INPUTS = tuple(f".{kind}" for kind in INPUT_SCALES)
ACTIVATION_SCALES = (*INPUTS, ".output_scale", ".input_scale_ub", *CACHE_SCALES)
STATIC = "static"
ALGORITHMS = ("FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO")


def check_floats(stored: Quantization) -> None:
    """Raise UsageError for a checkpoint of eight-bit floats that cannot be dequantized; reads no weights."""
    name, settings, _ = stored
    algorithm = settings.get("quant_algo")
    if name == MODELOPT and str(algorithm).upper() not in ALGORITHMS:  # ModelOpt writes some in capitals, some not
        known = ", ".join((*ALGORITHMS, "NVFP4 with rounded inputs in groups of 16"))
        raise UsageError(f"a modelopt checkpoint of algorithm {algorithm!r} cannot be dequantized here; those that can: {known}")
    if name == FP8 and (block := settings.get("weight_block_size")) is not None and not _is_block(block):
        raise UsageError(f"weight_block_size is {block!r}, not the rows and columns of a block")


def fixed_inputs(tensors: Mapping[str, Any], stored: Quantization) -> dict[str, Any]:
    """Return by layer the scale with which kernels round its inputs; {} where they compute one from the inputs.

    {} also where no layer has one: then nothing is rounded, which the run records.
    Raises HedgemarkError for a layer that lacks such a scale, or has one that is no single positive number.
    """
    settings = stored.settings
    fixed = stored.format == MODELOPT and str(settings.get("quant_algo")).upper() == ALGORITHMS[0]
    if not (fixed or (stored.format == FP8 and settings.get("activation_scheme") == STATIC)):
        return {}
    layers = [name.removesuffix(".weight") for name, tensor in tensors.items() if name.endswith(".weight") and _is_float8(tensor)]
    stored_for = {layer: [tensors[f"{layer}.{kind}"] for kind in INPUT_SCALES if f"{layer}.{kind}" in tensors] for layer in layers}
    if not any(stored_for.values()):
        return {}
    for layer, found in stored_for.items():
        if len(found) != 1 or not found[0].is_floating_point() or found[0].numel() != 1 or not 0 < float(found[0]) < float("inf"):
            sizes = ", ".join(f"{tuple(each.shape)} {each.dtype}" for each in found) or "none"
            raise HedgemarkError(f"layer {layer} should have one positive scale of its inputs, and the files hold {sizes}")
    return {layer: found[0].float().reshape(1) for layer, found in stored_for.items()}


def dequantize_floats(tensors: dict[str, Any], stored: Quantization) -> Iterator[tuple[str, Any]]:
    """Yield the name and the float32 weight (output, input) of every scaled layer; weight and scales are removed from `tensors`.

    Raises HedgemarkError for a float8 weight without scales, or scales that do not fit their weight.
    """
    for name in [name for name in tensors if name.endswith(ACTIVATION_SCALES)]:
        del tensors[name]
    stored_so = [name for name, tensor in tensors.items() if _is_float8(tensor) and not name.endswith(SCALES)]
    if not stored_so:
        raise HedgemarkError(f"the quantization settings say {stored.format}, and no weight is stored as eight-bit floats")
    for name in stored_so:
        scales = [tensors.pop(f"{name.removesuffix('weight')}{kind}", None) for kind in SCALES]
        present = [scale for scale in scales if scale is not None]
        if len(present) != 1 or not name.endswith(".weight"):
            raise HedgemarkError(f"tensor {name} is stored as eight-bit floats with {len(present)} scales instead of one")
        weight = tensors.pop(name)
        scale = _by_weight(present[0], weight.shape, stored.settings.get("weight_block_size"))
        if scale is None or weight.ndim != 2:
            sizes = f"{tuple(present[0].shape)} {present[0].dtype} for a weight of {tuple(weight.shape)}"
            raise HedgemarkError(f"the scales of tensor {name} do not fit it: {sizes}")
        yield name, weight.float() * scale


def unstated_rounding(tensors: Collection[str], stored: Quantization) -> dict[str, str]:
    """Return the settings that scales in the files imply and the config leaves out: rounding of activations, of the key/value cache."""
    settings = stored.settings
    cache, inputs = (any(name.endswith(kinds) for name in tensors) for kinds in (CACHE_SCALES, INPUTS))
    cache = cache and not (settings.get("kv_cache_scheme") or settings.get("kv_cache_quant_algo"))
    inputs = inputs and stored.format == FP8 and not settings.get("activation_scheme")
    return {**({"kv_cache_scheme": STATIC} if cache else {}), **({"activation_scheme": STATIC} if inputs else {})}


def _by_weight(scale: Any, shape: Any, block: Any) -> Any:
    """Return scales that broadcast to the weight: one, one per row, or one per number; None if their shape or dtype does not fit."""
    if not scale.is_floating_point():
        return None
    scale = scale.float()
    if scale.numel() == 1:
        return scale.flatten()
    if scale.numel() == shape[0] and scale.shape[0] == shape[0]:
        return scale.reshape(-1, 1)
    scale = scale.squeeze((1, 3)) if scale.ndim == 4 else scale  # ModelOpt writes (row of blocks, 1, column of blocks, 1)
    if scale.ndim != 2:
        return None
    rows, columns = block or (shape[0] // scale.shape[0], shape[1] // scale.shape[1])
    if (-(-shape[0] // max(1, rows)), -(-shape[1] // max(1, columns))) != tuple(scale.shape):
        return None
    return scale.repeat_interleave(rows, 0)[: shape[0]].repeat_interleave(columns, 1)[:, : shape[1]]


def _is_float8(tensor: Any) -> bool:
    import torch

    return tensor.dtype in (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)


def _is_block(block: Any) -> bool:
    return isinstance(block, list | tuple) and len(block) == 2 and all(isinstance(size, int) and size > 0 for size in block)
