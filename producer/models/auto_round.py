"""AutoRound checkpoints: layers packed in another library's layout, with settings of AutoRound's own that may differ from layer to layer.

In: the table of settings in a config.  Out: the same as settings of the layout that `packing_format` names, GPTQ, AWQ, float8 or
compressed-tensors, whose readers then unpack the layers. The library itself is not needed.
`extra_config` names exceptions, by the name of a layer or by a pattern that is searched in it; a name goes before patterns, and of these
the first that fits counts (auto_round/inference/utils.py). Exceptions of 16 bits or more are layers that are left as they were.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from schemas.errors import HedgemarkError
from schemas.levels import FULL_BITS

NAME = "auto-round"
GPTQ, AWQ, FP8, COMPRESSED_TENSORS = "gptq", "awq", "fp8", "compressed-tensors"


class Layout(NamedTuple):
    """The format whose reader unpacks the layers, what its settings say beside AutoRound's, and the data types it may hold."""

    format: str
    settings: Mapping[str, Any]
    data_types: tuple[str, ...] = ("int",)


MINUS_ONE, UNCHANGED = (Layout(GPTQ, {"checkpoint_format": version}) for version in ("gptq", "gptq_v2"))  # how zero points are stored
GEMM, FLOAT8 = Layout(AWQ, {"version": "gemm"}), Layout(FP8, {}, ("fp",))
LAYOUTS = {
    "auto_round:auto_gptq": MINUS_ONE, "auto_round:gptq": MINUS_ONE, "auto_round": UNCHANGED, "auto_round:gptqmodel": UNCHANGED,
    "auto_round:auto_awq": GEMM, "auto_round:awq": GEMM, "auto_round:fp8_static": FLOAT8, "auto_round:fp8": FLOAT8,
    "auto_round:llm_compressor": Layout(COMPRESSED_TENSORS, {}, ("nv_fp",)),
}  # fmt: skip
WHOLE_NAME = re.compile(r"[\w.-]+")  # patterns that the library writes hold `.*`
CHANGES = ("super_bits", "super_group_size", "rotation_config", "rotation_configs")  # with them packed numbers mean something else
# Bits of weights and inputs. Inputs in MX formats are left out: the library takes another scale for them than compressed-tensors.
FLOATS = {"fp": ((8, 8), (8, FULL_BITS)), "nv_fp": ((4, 4), (4, FULL_BITS))}
NVFP4_GROUP, NVFP4_INPUTS = 16, "nv_fp4_with_static_gs"


def unreadable(settings: Mapping[str, Any]) -> str:
    """Return why layers with these settings cannot be unpacked, "" if they can."""
    packing, layout = settings.get("packing_format"), _layout(settings)
    if layout is None:
        return f"packing_format {packing!r} (those that can be read: {', '.join(LAYOUTS)})"
    extra = settings.get("extra_config") or {}
    if not isinstance(extra, Mapping) or not all(isinstance(each, Mapping) for each in extra.values()):
        return "an extra_config that is no table of layers with their settings"
    for key in extra:
        try:
            re.compile(key)
        except re.error:
            return f"{key!r} in extra_config, which is no name or pattern of layers"
    if layout.format == COMPRESSED_TENSORS and (patterns := [key for key in extra if not WHOLE_NAME.fullmatch(key)]):
        return f"{patterns[0]!r} in extra_config, a pattern of layers packed as {packing}"
    schemes = [{**settings, **each} for each in extra.values() if each.get("bits", 0) < FULL_BITS]
    return next((reason for scheme in (settings, *schemes) if (reason := _unreadable_scheme(scheme, layout))), "")


def in_settings_of(settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the format whose reader unpacks the layers, and AutoRound's settings in its words. They must be readable."""
    layout = _layout(settings)
    assert layout is not None
    words = {**settings, **layout.settings}
    if layout.format == FP8 and isinstance(settings.get("group_size"), list | tuple):
        words["weight_block_size"] = list(settings["group_size"])
    if (settings.get("act_bits") or FULL_BITS) >= FULL_BITS:
        words["activation_scheme"] = None  # written also where inputs are not rounded
    if layout.format == COMPRESSED_TENSORS:
        words |= {"config_groups": {str(i): group for i, group in enumerate(_groups(settings))}, "ignore": [*_left_alone(settings)]}
    if settings.get("static_kv_dtype"):
        words["kv_cache_scheme"] = settings["static_kv_dtype"]
    return layout.format, words


def exception_of(settings: Mapping[str, Any], layer: str) -> Mapping[str, Any]:
    """Return the settings in which a layer differs from the rest; {} if in none."""
    extra: Mapping[str, Mapping[str, Any]] = settings.get("extra_config") or {}
    if layer in extra:
        return extra[layer]
    fitting = (each for key, each in extra.items() if each and not WHOLE_NAME.fullmatch(key) and re.search(key, layer))
    return next(fitting, {})


def is_mixed(settings: Mapping[str, Any]) -> bool:
    """Return whether some layers are quantized in another way than the rest; layers that are left as they were do not count."""
    return any(each and each.get("bits", 0) < FULL_BITS for each in (settings.get("extra_config") or {}).values())


def check_named_layers(tensors: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise HedgemarkError where exceptions name a layer that the files lack, or fit one whose weights are plain."""
    layers = {name.rpartition(".")[0] for name in tensors}
    if absent := [layer for layer in _named_layers(settings) if layer not in layers]:
        raise HedgemarkError(f"extra_config in the quantization settings names {absent[0]}, and the files hold no such layer")
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition(".")
        plain = part == "weight" and tensor.ndim == 2 and tensor.is_floating_point() and tensor.itemsize > 1
        exception = exception_of(settings, layer) if plain else {}
        if exception and (bits := exception.get("bits", settings["bits"])) < FULL_BITS:
            raise HedgemarkError(f"extra_config in the quantization settings says that {layer} has {bits} bits, and its weights are plain")


def _layout(settings: Mapping[str, Any]) -> Layout | None:
    """Return the layout that settings name; float8 weights without rounded inputs are written without a name."""
    packing = settings.get("packing_format")
    return FLOAT8 if packing is None and settings.get("data_type") == "fp" else LAYOUTS.get(str(packing))


def _unreadable_scheme(scheme: Mapping[str, Any], layout: Layout) -> str:
    kind, bits, inputs = scheme.get("data_type") or "int", scheme.get("bits"), scheme.get("act_bits") or FULL_BITS
    if kind not in layout.data_types:
        return f"data_type {kind!r} packed as {scheme.get('packing_format')}"
    if changed := [name for name in CHANGES if scheme.get(name)]:
        return f"{changed[0]} in its settings"
    if not isinstance(bits, int) or not isinstance(inputs, int):
        return f"bits {bits!r} of weights and {inputs!r} of inputs"
    known = (bits, inputs) in FLOATS[kind] if kind in FLOATS else inputs >= FULL_BITS
    if kind == "nv_fp":
        known = known and scheme.get("group_size") == NVFP4_GROUP and (inputs >= FULL_BITS or scheme.get("act_data_type") == NVFP4_INPUTS)
    beside = f" beside inputs of {inputs} bits ({scheme.get('act_data_type')})" if inputs < FULL_BITS else ""
    return "" if known else f"weights of {bits} bits ({kind}) in groups of {scheme.get('group_size')}{beside}"


def _named_layers(settings: Mapping[str, Any]) -> list[str]:
    """Return the layers that settings name as quantized in another way than the rest."""
    extra = settings.get("extra_config") or {}
    return [key for key, each in extra.items() if WHOLE_NAME.fullmatch(key) and each and each.get("bits", 0) < FULL_BITS]


def _groups(settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the groups of layers of one scheme as compressed-tensors writes them: exceptions first, then all layers of the blocks."""
    for layer in _named_layers(settings):
        yield _group({**settings, **exception_of(settings, layer)}, f"re:^{re.escape(layer)}$")
    blocks = settings.get("block_name_to_quantize") or []
    blocks = blocks.split(",") if isinstance(blocks, str) else blocks
    yield _group(settings, *(f"re:^{re.escape(str(block).strip())}\\." for block in blocks or ["model.layers"]))


def _group(scheme: Mapping[str, Any], *targets: str) -> dict[str, Any]:
    from compressed_tensors.quantization import preset_name_to_scheme  # type: ignore[import-untyped]

    weight_only = (scheme.get("act_bits") or FULL_BITS) >= FULL_BITS
    return dict(preset_name_to_scheme("NVFP4A16" if weight_only else "NVFP4", [*targets]).model_dump(mode="json"))


def _left_alone(settings: Mapping[str, Any]) -> Iterator[str]:
    extra = settings.get("extra_config") or {}
    yield from (key for key, each in extra.items() if each.get("bits", 0) >= FULL_BITS)
