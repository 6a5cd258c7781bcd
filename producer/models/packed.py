"""Quantized checkpoints become plain weights as the model is loaded, on any device.

In: a model folder.  Out: an ordinary model. A weight that GPTQ or AWQ packed is scale * (integer - zero point); transformers itself loads
these two formats only with kernels that are built for one accelerator. A compressed-tensors checkpoint is unpacked by that library;
where it also rounds a layer's inputs, hooks go on rounding them.
Layouts: AutoGPTQ's `qweight` (input * bits / 32, output) is packed along the inputs, AutoAWQ's GEMM `qweight` (input, output * bits / 32)
along the outputs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from producer.models.find import weight_files
from producer.models.stored_as import AWQ, GPTQ, quantization
from schemas.errors import UsageError

WORD = 32
GPTQ_BITS, AWQ_BITS = (2, 4, 8), (4,)  # GPTQ's 3 bits straddle words
AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)  # which field of a word holds its first, second, ... column


def load_packed(folder: Path, config: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Return the model with its weights dequantized, and transformers' report; `options` are those of `from_pretrained`."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    stored, dtype = config.quantization_config, options["dtype"]
    tensors = _read(folder)
    for layer in [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]:
        parts = {part: tensors.pop(f"{layer}.{part}", None) for part in ("qweight", "qzeros", "scales", "g_idx")}
        tensors[f"{layer}.weight"] = dequantize(parts, quantization(config).settings).to(
            parts["scales"].dtype if dtype == "auto" else dtype
        )
    del config.quantization_config
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    model, report = kind.from_pretrained(None, config=config, state_dict=tensors, output_loading_info=True, **options)
    model.config.quantization_config = stored  # what it was stored as is recorded with the run
    return model, report


def plain_forward(model: Any) -> None:
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


def check_packing(config: Any) -> None:
    """Raise UsageError for a GPTQ or AWQ checkpoint with bits or a version that cannot be unpacked; reads no weights."""
    name, settings = quantization(config)
    if name not in (GPTQ, AWQ):
        return
    bits, version = settings.get("bits", 4), str(settings.get("version", "gemm")).lower()
    known = GPTQ_BITS if name == GPTQ else AWQ_BITS
    if bits not in known:
        raise UsageError(f"a {name} checkpoint of {bits} bits cannot be unpacked; bits that can: {', '.join(map(str, known))}")
    if name == AWQ and version != "gemm":
        raise UsageError(f"an awq checkpoint of version {version!r} cannot be unpacked; version 'gemm' can")


def dequantize(parts: dict[str, Any], settings: Mapping[str, Any]) -> Any:
    """Return a layer's weight, (output, input) float32.

    parts    : `qweight`, `qzeros` (group, output * bits / 32), `scales` (group, output); GPTQ also has `g_idx` (input,), its group.
    settings : the checkpoint's `quantization_config`.
    """
    import torch

    bits, gptq = settings.get("bits", 4), settings["quant_method"] == GPTQ
    order = range(WORD // bits) if gptq else AWQ_ORDER
    weight = unpack(parts["qweight"].T, bits, order).T if gptq else unpack(parts["qweight"], bits, order)
    # AutoGPTQ stores zero points less one, except in its second version.
    offset = 1 if gptq and settings.get("checkpoint_format", "gptq") == "gptq" else 0
    scales = parts["scales"].float()
    zeros = unpack(parts["qzeros"], bits, order) + offset if parts["qzeros"] is not None else torch.full_like(scales, 2 ** (bits - 1))
    group = parts["g_idx"]
    if group is None:
        group = torch.arange(len(weight)) // (len(weight) // len(scales))
    return ((weight - zeros[group.long()]) * scales[group.long()]).T.contiguous()


def unpack(words: Any, bits: int, order: Any) -> Any:
    """Return the integers packed in every row: (row, word) int32 -> (row, word * 32 / bits)."""
    import torch

    shifts = torch.tensor([bits * field for field in order], dtype=torch.int32)
    return (words[..., None] >> shifts & (2**bits - 1)).flatten(-2)


def _read(folder: Path) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    tensors: dict[str, Any] = {}
    for path in weight_files(folder):
        tensors |= load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    return tensors
