"""Load quantized checkpoints as models with plain weights, on any device.

In: a model folder and its config.  Out: an ordinary model, and transformers' report of missing and unexpected tensors.
All are dequantized here: transformers needs the kernels of one accelerator for GPTQ, AWQ and eight-bit floats, and reads experts of
compressed-tensors without the rounding of their inputs.
"""

from pathlib import Path
from typing import Any

from producer.models import auto_round, modelopt_weights
from producer.models.bitsandbytes_weights import check_bitsandbytes, dequantize_bitsandbytes
from producer.models.compressed_weights import add_rounding, check_compressed, float8_inputs, round_inputs, take_modules, unpack_modules
from producer.models.float8_weights import check_floats, dequantize_floats, fixed_inputs, unstated_rounding
from producer.models.hqq_weights import check_hqq, dequantize_hqq
from producer.models.integer_weights import check_integers, unpack_integers
from producer.models.stored_as import (
    AWQ,
    BITSANDBYTES,
    COMPRESSED_TENSORS,
    FBGEMM,
    FP8,
    GGUF,
    GPTQ,
    HQQ,
    MODELOPT,
    add_settings,
    quantization,
)
from schemas.errors import UsageError

UNPACK = {
    GPTQ: unpack_integers, AWQ: unpack_integers, **dict.fromkeys((FP8, FBGEMM, MODELOPT), dequantize_floats),
    BITSANDBYTES: dequantize_bitsandbytes, HQQ: dequantize_hqq,
}  # fmt: skip
CHECKS = {
    GPTQ: check_integers, AWQ: check_integers, **dict.fromkeys((FP8, FBGEMM, MODELOPT), check_floats), COMPRESSED_TENSORS: check_compressed,
    BITSANDBYTES: check_bitsandbytes, HQQ: check_hqq,
}  # fmt: skip
READABLE = (*UNPACK, COMPRESSED_TENSORS, auto_round.NAME, GGUF)


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
    if stored.format == auto_round.NAME:
        reason = auto_round.unreadable(stored.settings)
        raise UsageError(f"an auto-round checkpoint with {reason} cannot be dequantized here; --backend vllm may run it")
    if stored.format in CHECKS:
        CHECKS[stored.format](stored)


def load_packed(paths: list[Path], config: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Return the model of some weight files, dequantized, and transformers' report; `options` are those of `from_pretrained`.

    It rounds its inputs where the files hold the scales for that.
    Raises HedgemarkError for tensors that do not fit together.
    """
    stored, dtype = quantization(config), options["dtype"]
    tensors = read_tensors(paths)
    if unstated := unstated_rounding(tensors, stored):
        add_settings(config, unstated)
        stored = quantization(config)
    if stored.writer == auto_round.NAME:
        auto_round.check_named_layers(tensors, stored.settings)
    inputs = {name: float8_inputs(scale) for name, scale in fixed_inputs(tensors, stored).items()}
    for name, weight in UNPACK[stored.format](tensors, stored):
        tensors[name] = weight.to(config.dtype or weight.dtype) if dtype == "auto" else weight.to(dtype)
    model, report = load_tensors(tensors, config, **options)
    add_rounding(model, inputs)
    return model, report


def load_compressed(paths: list[Path], config: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Return the model of a compressed-tensors checkpoint as `load_packed` does; it rounds its inputs where the checkpoint says so."""
    stored, tensors = quantization(config), read_tensors(paths)
    if stored.writer == auto_round.NAME:
        auto_round.check_named_layers(tensors, stored.settings)
    if stored.writer == MODELOPT:
        modelopt_weights.rename(tensors)
        if cache := {name: value for name, value in unstated_rounding(tensors, stored).items() if name == "kv_cache_scheme"}:
            add_settings(config, cache)
            stored = quantization(config)
    modules = take_modules(tensors, stored)
    tensors.update(unpack_modules(modules, stored, options["dtype"]))
    model, report = load_tensors(tensors, config, **options)
    round_inputs(model, modules, stored)
    return model, report


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


def read_tensors(paths: list[Path]) -> dict[str, Any]:
    """Return the tensors of weight files by name."""
    import torch
    from safetensors.torch import load_file

    tensors: dict[str, Any] = {}
    for path in paths:
        tensors |= load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    return tensors
