"""Number formats as levels: FP8, NVFP4, MXFP4, MXFP8 and FP8 beside 4-bit integers, as the presets of compressed-tensors define them.

In: a level's name, ours or that of compressed-tensors.  Out: its requirements, its scheme for llm-compressor, the rounding of activations,
and the values that weights can take. All is simulated: values are rounded to the format and stored in the model's own dtype.
Sources: Micikevicius et al. 2022, arXiv:2209.05433 (E4M3); OCP Microscaling Formats 1.0 (MXFP4, MXFP8: E8M0 scales of 32 values); NVFP4:
E2M1 values in groups of 16 with an E4M3 scale each and one float32 scale per tensor.
"""

from typing import Any, NamedTuple

from producer.models.compressed_weights import RoundInputTo
from producer.models.mx_scales import use_exact_scales
from schemas.levels import Level, parse_level

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # magnitudes of a 4-bit float
SCALE_BITS = {"float8_e4m3fn": 8, "uint8": 8}  # a scale without a format of its own is stored in 16 bits


class NumberFormat(NamedTuple):
    """One number format.

    preset     : its name among compressed-tensors' presets, which the ecosystem uses as well.
    group      : neighbouring columns that share a scale and must divide every layer's columns; 0 where a whole row or matrix shares one.
    weights_only : whether activations keep their precision.
    calibrated : whether the scale of the activations comes from compression data.
    """

    preset: str
    group: int = 0
    weights_only: bool = False
    calibrated: bool = False


FORMATS = {
    "w8a8-fp8": NumberFormat("FP8_DYNAMIC"),
    "w8a8-fp8-static": NumberFormat("FP8", calibrated=True),
    "w8a8-fp8-block": NumberFormat("FP8_BLOCK", group=128),
    "w4afp8": NumberFormat("W4AFP8", group=128),
    "nvfp4": NumberFormat("NVFP4", group=16, calibrated=True),
    "nvfp4a16": NumberFormat("NVFP4A16", group=16, weights_only=True),
    "mxfp4": NumberFormat("MXFP4", group=32),
    "mxfp4a16": NumberFormat("MXFP4A16", group=32, weights_only=True),
    "mxfp8": NumberFormat("MXFP8", group=32),
    "mxfp8a16": NumberFormat("MXFP8A16", group=32, weights_only=True),
}
_NAMES = {name: name for name in FORMATS} | {entry.preset.lower(): name for name, entry in FORMATS.items()} | {"int8": "w8a8"}


def canonical_level(level: Level) -> Level:
    """Return the level under our name if it was given under that of compressed-tensors: `FP8_DYNAMIC` is `w8a8-fp8`, `INT8` is `w8a8`."""
    return parse_level(_NAMES[level.text.lower()]) if level.text.lower() in _NAMES else level


def format_of(level: Level) -> NumberFormat | None:
    """Return the format that a level names; None if it names none."""
    return FORMATS.get(canonical_level(level).text)


def preset_scheme(number_format: NumberFormat) -> Any:
    """Return the scheme of a format for every linear layer but the head. Weight scales come from each group's largest magnitude."""
    from compressed_tensors.quantization import preset_name_to_scheme  # type: ignore[import-untyped]

    use_exact_scales()
    scheme = preset_name_to_scheme(number_format.preset, ["Linear"])
    scheme.weights.observer = "memoryless_minmax"
    return scheme


def round_inputs(layer: Any) -> None:
    """Make a layer round its inputs as its scheme says, if it says so; stored scales of the inputs become buffers of the layer."""
    args = layer.quantization_scheme.input_activations
    fixed = {name: getattr(layer, f"input_{name}", None) for name in ("scale", "zero_point", "global_scale")}
    for name, value in fixed.items():
        if value is not None:
            delattr(layer, f"input_{name}")
            layer.register_buffer(f"input_{name}", value.detach())
    if args is not None:
        layer.register_forward_pre_hook(RoundInputTo(args))


def steps(weight: Any, scale: Any, overall: Any, args: Any) -> Any:
    """Return the value of one unit of the format at every weight, (row, column) float64.

    scale   : as compressed-tensors keeps it: one, one per row, per (row, group), or per block.
    overall : NVFP4's scale of the whole tensor, None for other formats.
    """
    each = scale.double().reshape(scale.shape[0] if scale.numel() > 1 else 1, -1)
    down, across = {"tensor": (1, 1), "channel": (1, 1), "block": args.block_structure}.get(args.strategy, (1, args.group_size))
    each = each.repeat_interleave(down, 0).repeat_interleave(across, 1)
    rows, columns = weight.shape
    each = each[:rows, :columns].expand(rows, columns)
    return each if overall is None else each / overall.double()


def nearest(units: Any, args: Any) -> Any:
    """Return the nearest value of the format to each of these, in float64; larger ones are clamped to the format's largest."""
    import torch

    if args.type == "int":
        low = -(2 ** (args.num_bits - 1))
        return units.round().clamp(low, -low - 1)
    if args.num_bits == 8:
        largest = torch.finfo(torch.float8_e4m3fn).max
        return units.clamp(-largest, largest).float().to(torch.float8_e4m3fn).double()
    return nearest_e2m1(units)


def nearest_e2m1(units: Any) -> Any:
    """Return the nearest 4-bit float to each of these, ties to the one whose last bit is 0; larger ones are clamped to 6."""
    import torch

    magnitudes = torch.tensor(E2M1, dtype=units.dtype, device=units.device)
    borders = (magnitudes[1:] + magnitudes[:-1]) / 2
    low, high = torch.bucketize(units.abs(), borders), torch.bucketize(units.abs(), borders, right=True)
    return magnitudes[torch.where(low % 2 == 0, low, high)] * units.sign()  # they differ only at ties, which go to the even last bit


def wide(x: Any) -> Any:
    """Return a tensor in float32 or wider: in 16 bits, step counts up to 127 are not exact and the step of an all-zero token becomes 0."""
    import torch

    return x.to(torch.promote_types(x.dtype, torch.float32))


def scale_of_the_wrong_type(scale: Any, args: Any) -> bool:
    """Return whether the format cannot store a scale: it must be an E4M3 number for NVFP4, a power of two for the MX formats."""
    import torch

    if str(args.scale_dtype).removeprefix("torch.") == "uint8":
        return not bool((torch.log2(scale.double()) == torch.log2(scale.double()).round()).all())
    if args.scale_dtype is not None:
        return not torch.equal(scale.float().to(args.scale_dtype).float(), scale.float())
    return False


def scale_bits(args: Any) -> int:
    """Return the bits that one scale takes in a file."""
    return SCALE_BITS.get(str(args.scale_dtype).removeprefix("torch."), 16)
