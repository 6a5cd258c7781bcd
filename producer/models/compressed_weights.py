"""Unpack the weights of a compressed-tensors checkpoint, and make a model round its inputs as the checkpoint says.

In: the tensors of its files and the config's settings.  Out: plain weights; a model whose layers round their inputs in hooks.
Every module is unpacked by itself, experts too: transformers leaves out the rounding of their inputs, and the scales of some formats.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from producer.models.mx_scales import use_exact_scales
from producer.models.stored_as import Quantization
from schemas.errors import HedgemarkError, UsageError

WEIGHT = ("weight_packed", "weight_scale", "weight_zero_point", "weight_global_scale", "weight_shape", "weight_g_idx")
FIXED_INPUT = ("input_scale", "input_zero_point", "input_global_scale")
CACHE = ("k_scale", "v_scale", "q_scale")  # of the key/value cache, whose rounding is not simulated; `describe` says so
WAITING = "inputs_of_experts"  # attribute of a model whose experts lie in one tensor and should round their inputs


class Inputs(NamedTuple):
    """How a layer rounds its inputs: the arguments of its scheme, and the scales that the checkpoint fixes for them."""

    args: Any
    fixed: Mapping[str, Any]


def check_compressed(stored: Quantization) -> None:
    """Raise UsageError for a checkpoint that cannot be read; reads no weights."""
    settings = stored.settings
    if settings.get("transform_config"):  # its rotations run inside the forward pass, and transformers drops some when it reloads a model
        raise UsageError("a compressed-tensors checkpoint with rotations (transform_config) is not reloaded rightly by transformers")
    if (status := settings.get("quantization_status", "compressed")) != "compressed":
        raise UsageError(f"a compressed-tensors checkpoint of status {status!r} holds weights that are not rounded; save it compressed")
    if any(group.get("output_activations") for group in (settings.get("config_groups") or {}).values()):
        raise UsageError("a compressed-tensors checkpoint whose layers round their outputs is not simulated; --backend vllm may run it")


def take_modules(tensors: dict[str, Any], stored: Quantization) -> dict[str, dict[str, Any]]:
    """Take every quantized module's tensors out, and return them by module and by their own names.

    The scales of a quantized key/value cache are dropped: its rounding is not simulated, which `checkpoint` says.
    """
    modules: dict[str, dict[str, Any]] = {}
    for full in list(tensors):
        name, _, part = full.rpartition(".")
        if part in (*WEIGHT, *FIXED_INPUT):
            modules.setdefault(name, {})[part] = tensors.pop(full)
        elif part in CACHE and stored.settings.get("kv_cache_scheme"):
            del tensors[full]
    for name, parts in modules.items():
        if f"{name}.weight" in tensors:
            parts["weight"] = tensors.pop(f"{name}.weight")
    return modules


def unpack_modules(modules: Mapping[str, dict[str, Any]], stored: Quantization, dtype: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name and the dequantized value of every module's weight, in a dtype; "auto" keeps that of the scales.

    Raises HedgemarkError for a module with scales that no group of the config is meant for, or without those that its group announces.
    """
    for name, parts in modules.items():
        scheme = _scheme_of(name, stored.settings)
        if scheme is None:
            raise HedgemarkError(f"module {name} is stored with scales, and no group of its quantization_config is meant for it")
        weight = _unpacked(name, parts, scheme)
        yield f"{name}.weight", weight if dtype == "auto" else weight.to(dtype)


def round_inputs(model: Any, modules: Mapping[str, dict[str, Any]], stored: Quantization) -> None:
    """Make the model's layers round their inputs as their scheme says; experts that lie in one tensor wait for `round_expert_inputs`.

    Raises HedgemarkError for a layer that the config says is quantized and the files hold without scales.
    """
    _check_all_quantized(model, modules, stored.settings)
    inputs = {}
    for name, parts in modules.items():
        args = _scheme_of(name, stored.settings).input_activations
        if args:
            inputs[name] = Inputs(args, {part: parts[part] for part in FIXED_INPUT if part in parts})
    add_rounding(model, inputs)


def add_rounding(model: Any, inputs: Mapping[str, Inputs]) -> None:
    """Make layers round their inputs, by name; experts that lie in one tensor wait for `round_expert_inputs`."""
    module_names = {name for name, _ in model.named_modules()}
    _add_hooks(model, {name: each for name, each in inputs.items() if name in module_names})
    if waiting := {name: each for name, each in inputs.items() if name not in module_names}:
        setattr(model, WAITING, waiting)


def round_expert_inputs(model: Any, make_linear: Callable[[Any], Any]) -> Any:
    """Return the model with experts that round their inputs, where a checkpoint says so; the others are left as they are.

    make_linear : writes every matrix of every expert as a linear layer, in place.
    Raises HedgemarkError where the checkpoint has other names for the experts than the model then has.
    """
    waiting: Mapping[str, Inputs] = model.__dict__.pop(WAITING, {})
    if not waiting:
        return model
    model = make_linear(model)
    module_names = {name for name, _ in model.named_modules()}
    if missing := [name for name in waiting if name not in module_names]:
        kind = model.config.model_type
        raise HedgemarkError(f"{missing[0]} should round its inputs, and a model of type {kind!r} has no layer of this name here")
    _add_hooks(model, waiting)
    return model


def float8_inputs(scale: Any) -> Inputs:
    """Return how a layer rounds its inputs to eight-bit floats with one scale for all of them: float8(x / scale) * scale."""
    from compressed_tensors.quantization import QuantizationArgs  # type: ignore[import-untyped]

    return Inputs(QuantizationArgs(num_bits=8, type="float", strategy="tensor", symmetric=True, dynamic=False), {"input_scale": scale})


def rounds_inputs(model: Any) -> bool:
    """Return whether any layer of a model rounds its inputs."""
    hooks = (hook for module in model.modules() for hook in module._forward_pre_hooks.values())
    return bool(model.__dict__.get(WAITING)) or any(isinstance(hook, RoundInputTo) for hook in hooks)


def _check_all_quantized(model: Any, modules: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise HedgemarkError for a layer that the config says is quantized and the files hold without scales."""
    import torch

    if settings.get("config_groups") and not modules:
        raise HedgemarkError("the quantization settings name groups of layers, and no layer is stored with scales; its weights are plain")
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    if not linear & {*modules}:  # the files have other names for the layers than the model has
        return
    if plain := sorted(name for name in linear - {*modules} if _scheme_of(name, settings) is not None):
        raise HedgemarkError(f"layer {plain[0]} is stored without the scales that its quantization_config announces")


def _scheme_of(name: str, settings: Mapping[str, Any]) -> Any:
    """Return the scheme that the config means for a module, with the format its weights are packed in; None for a module left as it was."""
    import torch
    from compressed_tensors.compressors.format import infer_module_format  # type: ignore[import-untyped]
    from compressed_tensors.quantization import QuantizationScheme  # type: ignore[import-untyped]
    from compressed_tensors.utils import is_match  # type: ignore[import-untyped]

    linear = torch.nn.Linear(1, 1, device="meta")
    for group in (settings.get("config_groups") or {}).values():
        if is_match(name, linear, group["targets"], settings.get("ignore") or ()):
            scheme = QuantizationScheme.model_validate(group)
            scheme.format = scheme.format or infer_module_format(torch.nn.Linear, scheme)
            return scheme
    return None


def _unpacked(name: str, stored: dict[str, Any], scheme: Any) -> Any:
    """Return a module's weights as its library dequantizes them; four-bit floats in float32, where the library takes bfloat16."""
    import torch
    from compressed_tensors.compressors import BaseCompressor, unpack_fp4_from_uint8  # type: ignore[import-untyped]
    from compressed_tensors.config import CompressionFormat  # type: ignore[import-untyped]
    from compressed_tensors.quantization.lifecycle.forward import dequantize  # type: ignore[import-untyped]

    compressor = BaseCompressor.get_value_from_registry(CompressionFormat(scheme.format).value)
    announced = {*compressor.compression_param_names(scheme)}
    _check_announced(name, stored, announced, scheme)
    unpacked = compressor.decompress(stored, scheme)
    weight = unpacked["weight"]
    _check_sizes(name, stored, scheme.weights, tuple(weight.shape))
    if scheme.weights.type == "float" and "weight_packed" in stored:  # the library rounds products of value and scale to bfloat16
        values = unpack_fp4_from_uint8(stored["weight_packed"], *weight.shape, dtype=torch.float32)
        overall = stored.get("weight_global_scale")
        weight = dequantize(values, unpacked["weight_scale"].float(), args=scheme.weights, global_scale=overall, dtype=torch.float32)
    return weight


def _check_announced(name: str, stored: Mapping[str, Any], announced: set[str], scheme: Any) -> None:
    """Raise HedgemarkError for a tensor that the scheme needs and the module lacks, or holds without a use; zero points of 0 say nothing.

    The library takes a zero point that is missing for 0, and an overall scale that is missing for 1.
    """
    if absent := (announced | _fixed_inputs(scheme.input_activations)) - {*stored}:
        raise HedgemarkError(f"module {name} lacks {', '.join(sorted(absent))}, which its quantization_config announces")
    used = announced | ({*FIXED_INPUT} if scheme.input_activations else set())
    for part in sorted({*stored} - used):
        if not (part.endswith("zero_point") and not stored[part].any()):
            raise HedgemarkError(f"module {name} is stored with {part}, which its quantization_config does not announce")


def _fixed_inputs(args: Any) -> set[str]:
    """Return the names of the tensors without which a layer cannot round its inputs as its scheme says."""
    if args is None:
        return set()
    overall = {"input_global_scale"} if getattr(args.strategy, "value", args.strategy) == "tensor_group" else set()
    if args.dynamic:
        return overall
    return overall | {"input_scale"} | (set() if args.symmetric else {"input_zero_point"})


def _check_sizes(name: str, stored: Mapping[str, Any], args: Any, shape: tuple[int, ...]) -> None:
    """Raise HedgemarkError for scales or packed words that do not cover a weight of this shape, which libraries stretch or pad."""
    import torch

    scale, packed = stored["weight_scale"], stored.get("weight_packed")
    rows, columns = shape
    group, block = args.group_size or columns, args.block_structure or (rows, columns)
    sizes = {
        "tensor": (1,),
        "channel": (rows,),
        "group": (rows, -(-columns // group)),
        "tensor_group": (rows, -(-columns // group)),
        "block": (-(-rows // block[0]), -(-columns // block[1])),
    }
    expected = sizes.get(str(getattr(args.strategy, "value", args.strategy)))
    n_scales = (scale.numel(),) if expected and len(expected) == 1 else tuple(scale.shape)
    if (expected and n_scales != expected) or not (scale.is_floating_point() or scale.dtype == torch.uint8):
        raise HedgemarkError(
            f"module {name} has scales {tuple(scale.shape)} {scale.dtype} for a weight of {shape}, not those that its config announces"
        )
    words = -(-columns * args.num_bits // (8 * packed.itemsize)) if packed is not None else 0
    stated = tuple(stored["weight_shape"].tolist()) if "weight_shape" in stored else shape
    if packed is not None and (tuple(packed.shape) != (rows, words) or stated != shape):
        raise HedgemarkError(f"module {name} has packed words {tuple(packed.shape)} for a weight of {stated} in {args.num_bits} bits")


class RoundInputTo:
    """Forward pre-hook: round a layer's input to a number format, with scales computed from the input or stored in the layer.

    The library's own forward pass swaps the weight for a rounded one and back, so that two threads cannot share a model.
    """

    def __init__(self, args: Any) -> None:
        use_exact_scales()
        self.args = args

    def __call__(self, layer: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments with the first, (..., channel), rounded in float32."""
        from compressed_tensors.quantization import fake_quantize
        from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp  # type: ignore[import-untyped]

        x = arguments[0]
        tokens = x.reshape(1, -1, x.shape[-1]).float()  # with fewer dimensions the library would take one scale for all tokens
        overall = getattr(layer, "input_global_scale", None)
        if self.args.dynamic:
            scale, zero_point = compute_dynamic_scales_and_zp(tokens, self.args, layer, global_scale=overall)
        else:
            scale, zero_point = layer.input_scale, getattr(layer, "input_zero_point", None)
        rounded = fake_quantize(tokens, scale.float(), zero_point, self.args, global_scale=overall)
        return (rounded.reshape(x.shape).to(x.dtype), *arguments[1:])


def _add_hooks(model: Any, inputs: Mapping[str, Inputs]) -> None:
    for name, (args, fixed) in inputs.items():
        layer = model.get_submodule(name)
        for part, value in fixed.items():
            layer.register_buffer(part, value)
        layer.register_forward_pre_hook(RoundInputTo(args))
