"""Dequantize weights that HQQ stored: weight = (integer - zero point) * scale, with zero points that are no integers.

In: the tensors of a checkpoint by name.  Out: the same, with one plain `weight` for every packed layer; the library is not needed.
A layer is stored as `W_q` with `scale`, `zero` and its own settings, each a tensor (hqq, core/quantize.py: nbits, group_size, axis, shape,
packing, ...), as transformers and the library save it. The weight, seen as rows of one group each (axis 1) or columns (axis 0), is cut
into as many equal blocks of rows as a word holds integers, and the first block lies in the highest bits (core/bitpack.py).
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from producer.models.stored_as import Quantization, hqq_params
from schemas.errors import HedgemarkError, UsageError


class Packing(NamedTuple):
    """How many integers of how many bits a word holds."""

    per_word: int
    bits: int


PACKINGS = {
    "8bit_u8": Packing(1, 8), "4bit_u8": Packing(2, 4), "3bit_32": Packing(10, 3), "2bit_u8": Packing(4, 2), "1bit_u8": Packing(8, 1),
}  # fmt: skip
BY_BITS = {8: "8bit_u8", 6: "8bit_u8", 5: "8bit_u8", 4: "4bit_u8", 3: "3bit_32", 2: "2bit_u8", 1: "1bit_u8"}
NEEDED = ("nbits", "group_size", "axis", "shape", "packing", "scale", "zero")
# What was done when the layer was made, or how the library holds it; neither changes what its numbers mean.
WITHOUT_EFFECT = (
    "unpack_view_dtype", "compute_dtype", "offload_meta", "encoded_state_dict", "stores_quant_config", "channel_wise", "optimize",
    "round_zero",
)  # fmt: skip
FLAGS = ("view_as_float", "quant_scale", "quant_zero")


def check_hqq(stored: Quantization) -> None:
    """Raise UsageError for an HQQ checkpoint whose settings cannot be read; reads no weights."""
    groups = hqq_params(stored.settings)
    if not groups:
        raise UsageError("an hqq checkpoint whose quantization settings state no weight_quant_params cannot be dequantized")
    for params in groups.values():
        bits, group, axis = (params.get(name) for name in ("nbits", "group_size", "axis"))
        if bits not in BY_BITS or axis not in (0, 1) or not (isinstance(group, int) and group > 0):
            raise UsageError(
                f"an hqq checkpoint of {bits} bits in groups of {group} along axis {axis} cannot be dequantized; bits that can: "
                f"{', '.join(map(str, BY_BITS))}, along axis 0 or 1"
            )


def dequantize_hqq(tensors: dict[str, Any], stored: Quantization) -> Iterator[tuple[str, Any]]:
    """Yield the name and the float32 weight (output, input) of every packed layer; its parts are removed from `tensors`.

    Raises HedgemarkError where a layer's parts are missing, left over, or contradict each other or the settings.
    """
    layers = [name.removesuffix(".W_q") for name in tensors if name.endswith(".W_q")]
    if not layers:
        raise HedgemarkError("the quantization settings say hqq, and no layer is packed (W_q); its weights are plain")
    groups, skipped = hqq_params(stored.settings), stored.settings.get("skip_modules") or ()
    for layer in layers:
        tag = ".".join(part for part in layer.split(".") if part not in ("model", "layers") and not part.isnumeric())  # as hqq names layers
        stated = groups.get("", groups.get(tag))
        if stated is None or any(part in layer for part in skipped):
            raise HedgemarkError(f"layer {layer} is packed, and the quantization settings leave it out")
        yield f"{layer}.weight", _weight(tensors, layer, stated)


def _weight(tensors: dict[str, Any], layer: str, stated: Mapping[str, Any]) -> Any:
    words = tensors.pop(f"{layer}.W_q")
    parts = {part: tensors.pop(f"{layer}.{part}", None) for part in (*NEEDED, *FLAGS, *WITHOUT_EFFECT)}
    if f"{layer}.weight" in tensors:
        raise HedgemarkError(f"layer {layer} has packed integers (W_q) and plain weights as well; one of them is of another save")
    if missing := [part for part in NEEDED if parts[part] is None]:
        raise HedgemarkError(f"layer {layer} has packed integers (W_q) and lacks {', '.join(missing)}")
    if changed := [part for part in FLAGS if parts[part] is not None and bool(parts[part].any())]:
        raise HedgemarkError(f"layer {layer} is stored with {changed[0]}, which cannot be dequantized")
    for part in ("nbits", "group_size", "axis"):
        if parts[part].flatten().tolist() != [stated[part]]:
            own = parts[part].flatten().tolist()
            raise HedgemarkError(f"layer {layer} states {part} {own}, and the quantization settings say {stated[part]}")
    bits, group, axis = (int(stated[part]) for part in ("nbits", "group_size", "axis"))
    packing = "".join(map(chr, parts["packing"].flatten().tolist()))
    shape = tuple(parts["shape"].flatten().tolist())
    if packing != BY_BITS[bits] or len(shape) != 2 or min(shape) < 1 or shape[0] * shape[1] % group:
        raise HedgemarkError(f"layer {layer} states a weight of {shape} in groups of {group}, packed as {packing!r}, which do not agree")
    n_groups = shape[0] * shape[1] // group
    rows, columns, per_group = (n_groups, group, (n_groups, 1)) if axis == 1 else (group, n_groups, (1, n_groups))
    integers = _unpack(words, PACKINGS[packing], rows, columns, layer)
    if bool((integers > 2**bits - 1).any()):
        raise HedgemarkError(f"layer {layer} holds integers of more than {bits} bits")
    scale, zero = (_per_group(parts[part], per_group, layer, part) for part in ("scale", "zero"))
    return ((integers - zero) * scale).reshape(shape)


def _unpack(words: Any, packing: Packing, rows: int, columns: int, layer: str) -> Any:
    """Return the integers (row, column) of words (block's row, column), in float32."""
    import torch

    expected = torch.int32 if packing.bits == 3 else torch.uint8
    divides = packing.bits == 3 or rows % packing.per_word == 0  # only words of three bits are padded
    if not divides or words.dtype != expected or tuple(words.shape) != (-(-rows // packing.per_word), columns):
        found = f"{tuple(words.shape)} {words.dtype}"
        raise HedgemarkError(f"layer {layer} has words (W_q) {found}, not those of {rows} x {columns} integers of {packing.bits} bits")
    shifts = (packing.bits * (packing.per_word - 1 - block) for block in range(packing.per_word))
    return torch.cat([words >> shift & 2**packing.bits - 1 for shift in shifts])[:rows].float()


def _per_group(part: Any, shape: tuple[int, int], layer: str, name: str) -> Any:
    if not part.is_floating_point() or tuple(part.shape) != shape:
        raise HedgemarkError(f"layer {layer} has {name} {tuple(part.shape)} {part.dtype}, not one number for each of {max(shape)} groups")
    return part.float()
