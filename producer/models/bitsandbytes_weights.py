"""Dequantize weights that bitsandbytes stored: 4-bit codes (NF4, FP4) in blocks with a scale each, or eight-bit steps with a scale per row.

In: the tensors of a checkpoint by name.  Out: the same, with one plain `weight` for every quantized layer; the library is not needed.
In 4 bits `weight` has two codes per byte, the first in the high half, which number the values of `weight.quant_map`; a value is multiplied
by its block's `weight.absmax`. With double quantization `absmax` has codes too: `nested_quant_map`, `nested_absmax` and an offset give the
scales. In 8 bits a weight is its step times the row's `SCB` / 127.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from producer.models.stored_as import Quantization
from schemas.errors import HedgemarkError, UsageError

STATE = ".weight.quant_state.bitsandbytes__"
FOUR_BITS = ("nf4", "fp4")
LARGEST = 127
BY_ROW = 0  # the layout of eight-bit weights that the library writes since version 0.37


def check_bitsandbytes(stored: Quantization) -> None:
    """Raise UsageError for settings that name neither 4 nor 8 bits, or other 4-bit values than NF4 and FP4; reads no weights."""
    four, eight = stored.settings.get("load_in_4bit"), stored.settings.get("load_in_8bit")
    if bool(four) == bool(eight):
        raise UsageError("a bitsandbytes checkpoint must say either load_in_4bit or load_in_8bit in its quantization settings")
    kind = stored.settings.get("bnb_4bit_quant_type", FOUR_BITS[1])
    if four and kind not in FOUR_BITS:
        raise UsageError(f"a bitsandbytes checkpoint of type {kind!r} cannot be dequantized; types that can: {', '.join(FOUR_BITS)}")


def dequantize_bitsandbytes(tensors: dict[str, Any], stored: Quantization) -> Iterator[tuple[str, Any]]:
    """Yield the name and the float32 weight (output, input) of every quantized layer; its parts are removed from `tensors`.

    Raises HedgemarkError if a layer's parts are missing or do not fit together.
    """
    four = bool(stored.settings.get("load_in_4bit"))
    ending = STATE if four else ".SCB"
    layers = [name.partition(ending)[0] for name in tensors if ending in name]
    if not layers:
        raise HedgemarkError(f"the quantization settings say bitsandbytes in {4 if four else 8} bits, and no layer is stored so")
    for layer in layers:
        yield f"{layer}.weight", _four_bits(tensors, layer, stored) if four else _eight_bits(tensors, layer)


def _four_bits(tensors: dict[str, Any], layer: str, stored: Quantization) -> Any:
    import torch

    kind = stored.settings.get("bnb_4bit_quant_type", FOUR_BITS[1])
    parts = {name.removeprefix(f"{layer}.weight."): tensors.pop(name) for name in list(tensors) if name.startswith(f"{layer}.weight.")}
    packed, state = tensors.pop(f"{layer}.weight", None), _state(parts.pop(f"quant_state.bitsandbytes__{kind}", None), layer)
    if packed is None or (values := parts.pop("quant_map", None)) is None or (scales := parts.pop("absmax", None)) is None:
        raise HedgemarkError(f"layer {layer} lacks its codes (weight), its values (quant_map) or its scales (absmax)")
    rows, columns = state["shape"]
    packed, block = packed.contiguous().view(torch.uint8).flatten(), state["blocksize"]
    n_blocks = -(-rows * columns // block)
    if (packed.numel(), scales.numel(), values.numel()) != (-(-rows * columns // 2), n_blocks, 16):
        raise HedgemarkError(
            f"layer {layer} has {packed.numel()} bytes of codes, {scales.numel()} scales and {values.numel()} values, which do not make a "
            f"matrix of {rows} x {columns} in blocks of {block}"
        )
    if scales.dtype == torch.uint8:
        scales = _nested(scales, parts, state, layer)
    if parts:
        raise HedgemarkError(f"layer {layer} has a part that is not known, weight.{next(iter(parts))}")
    return four_bit_values(packed, values, scales, block, rows * columns).reshape(rows, columns)


def four_bit_values(packed: Any, values: Any, scales: Any, block: int, n_weights: int) -> Any:
    """Return (weight,) the float32 numbers that 4-bit codes stand for.

    packed : (byte,) uint8, two codes each, the first in the high half.  values : (16,) what the codes number.
    scales : (block,) what the values of each `block` neighbouring weights are multiplied by.
    """
    import torch

    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten()[:n_weights]
    return values.float()[codes.long()] * scales.float().repeat_interleave(block)[:n_weights]


def _nested(codes: Any, parts: dict[str, Any], state: Mapping[str, Any], layer: str) -> Any:
    """Return scales that are stored as eight-bit codes themselves."""
    values, largest = parts.pop("nested_quant_map", None), parts.pop("nested_absmax", None)
    block, offset = state.get("nested_blocksize"), state.get("nested_offset")
    if values is None or largest is None or not isinstance(block, int) or block < 1 or not isinstance(offset, float):
        raise HedgemarkError(f"layer {layer} has scales in 8 bits and lacks what they stand for (nested_quant_map, nested_absmax, offset)")
    if (values.numel(), largest.numel()) != (256, -(-codes.numel() // block)):
        raise HedgemarkError(f"layer {layer} has {largest.numel()} scales for {codes.numel()} scales of blocks, in groups of {block}")
    return values.float()[codes.long()] * largest.float().repeat_interleave(block)[: codes.numel()] + offset


def _state(stored: Any, layer: str) -> Mapping[str, Any]:
    """Return a layer's shape and block sizes, which are stored as JSON in a tensor of bytes."""
    try:
        state = json.loads(bytes(stored.tolist()))
        shape, block = state["shape"], state["blocksize"]
        if len(shape) == 2 and all(isinstance(size, int) and size > 0 for size in (*shape, block)):
            return dict(state)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        pass
    raise HedgemarkError(f"layer {layer} does not state its shape and block size (quant_state), or is of another type than its config says")


def _eight_bits(tensors: dict[str, Any], layer: str) -> Any:
    import torch

    steps, scale, layout = (tensors.pop(f"{layer}.{part}", None) for part in ("weight", "SCB", "weight_format"))
    if layout is not None and (layout.numel() != 1 or int(layout) != BY_ROW):
        raise HedgemarkError(f"layer {layer} is laid out for the kernels of one GPU; load and save it with a newer bitsandbytes")
    if steps is None or steps.dtype != torch.int8 or steps.ndim != 2 or scale.numel() != len(steps):
        raise HedgemarkError(f"layer {layer} has {scale.numel()} row scales (SCB) and no eight-bit weight with so many rows")
    return steps.float() * (scale.float().flatten()[:, None] / LARGEST)
