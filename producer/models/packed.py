"""Load quantized checkpoints as models with plain weights, on any device.

In: a model folder and its config.  Out: an ordinary model, and transformers' report of missing and unexpected tensors.
GPTQ, AWQ and eight-bit floats are dequantized here, since transformers needs the kernels of one accelerator for them. A checkpoint of
compressed-tensors is unpacked by that library; if it also rounds a layer's inputs, hooks round them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from producer.models.float8_weights import check_floats, dequantize_floats
from producer.models.integer_weights import check_integers, unpack_integers
from producer.models.stored_as import AWQ, COMPRESSED_TENSORS, FBGEMM, FP8, GGUF, GPTQ, MODELOPT, quantization
from schemas.errors import UsageError

UNPACK = {GPTQ: unpack_integers, AWQ: unpack_integers, **dict.fromkeys((FP8, FBGEMM, MODELOPT), dequantize_floats)}
CHECKS = {GPTQ: check_integers, AWQ: check_integers, **dict.fromkeys((FP8, FBGEMM, MODELOPT), check_floats)}
READABLE = (*UNPACK, COMPRESSED_TENSORS, GGUF)


def check_stored(config: Any) -> None:
    """Raise UsageError for a checkpoint quantized in a format, layout or number of bits that cannot be read; reads no weights."""
    stored = quantization(config)
    if not stored.format and not stored.settings:
        return
    if stored.format not in READABLE:
        raise UsageError(
            f"its weights are quantized as {stored.format or 'an unnamed format'!r}, which cannot be dequantized here; formats that can: "
            f"{', '.join(READABLE)}; --backend vllm may run it"
        )
    if stored.format in CHECKS:
        CHECKS[stored.format](stored)
    if stored.format == COMPRESSED_TENSORS:
        _check_compressed(stored.settings)


def load_packed(paths: list[Path], config: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Return the model of some weight files, dequantized, and transformers' report; `options` are those of `from_pretrained`.

    Raises HedgemarkError for tensors that do not fit together.
    """
    stored, dtype = quantization(config), options["dtype"]
    tensors = read_tensors(paths)
    for name, weight in UNPACK[stored.format](tensors, stored):
        tensors[name] = weight.to(config.dtype or weight.dtype) if dtype == "auto" else weight.to(dtype)
    return load_tensors(tensors, config, **options)


def load_tensors(tensors: dict[str, Any], config: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Return the model of a config with these plain weights, and transformers' report; the config keeps what they were stored as."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    stored = getattr(config, "quantization_config", None)
    if stored is not None:
        del config.quantization_config
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    model, report = kind.from_pretrained(None, config=config, state_dict=tensors, output_loading_info=True, **options)
    if stored is not None:
        model.config.quantization_config = stored
    return model, report


def load_compressed(folder: Path, config: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Return the model of a compressed-tensors checkpoint with its weights dequantized, and transformers' report."""
    from transformers import AutoModelForCausalLM

    stored = config.quantization_config
    # Left to itself the library dequantizes in the first whole forward pass, and the engine runs single layers.
    config.quantization_config = {**stored, "dequantize": True}
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, config=config, output_loading_info=True, **options)
    model, report = loaded
    _plain_forward(model)
    for layer in model.modules():  # four-bit floats are unpacked to bfloat16, whatever is asked for
        if getattr(layer, "quantization_scheme", None) is not None:
            layer.weight.data = layer.weight.data.to(model.dtype)
    model.config.quantization_config = stored
    return model, report


def read_tensors(paths: list[Path]) -> dict[str, Any]:
    """Return the tensors of weight files by name."""
    import torch
    from safetensors.torch import load_file

    tensors: dict[str, Any] = {}
    for path in paths:
        tensors |= load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    return tensors


def _check_compressed(settings: Mapping[str, Any]) -> None:
    if settings.get("transform_config"):  # its rotations run inside the forward pass, and transformers drops some when it reloads a model
        raise UsageError("a compressed-tensors checkpoint with rotations (transform_config) is not reloaded rightly by transformers")
    if (status := settings.get("quantization_status", "compressed")) != "compressed":
        raise UsageError(f"a compressed-tensors checkpoint of status {status!r} holds weights that are not rounded; save it compressed")


def _plain_forward(model: Any) -> None:
    """Give every layer that compressed-tensors wrapped a plain forward pass, with hooks that round its inputs and outputs.

    The library's own forward pass is not thread-safe: it swaps the weight for a rounded one and back.
    """
    for layer in model.modules():
        scheme = getattr(layer, "quantization_scheme", None)
        if scheme is not None:
            layer.__dict__.pop("forward", None)
            if scheme.input_activations:
                layer.register_forward_pre_hook(lambda layer, inputs: (_rounded(layer, inputs[0], "input"), *inputs[1:]))
            if scheme.output_activations:
                layer.register_forward_hook(lambda layer, _, output: _rounded(layer, output, "output"))


def _rounded(layer: Any, value: Any, side: str) -> Any:
    from compressed_tensors.quantization.lifecycle.forward import forward_quantize  # type: ignore[import-untyped]

    return forward_quantize(layer, value, side, getattr(layer.quantization_scheme, f"{side}_activations"))
