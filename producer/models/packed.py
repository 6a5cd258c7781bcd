"""Compressed checkpoints become plain weights as the model is loaded, on any device.

In: a model folder.  Out: an ordinary model. What GPTQ or AWQ packed is scale * (integer - zero point); transformers itself loads these
two formats only with kernels built for one accelerator. compressed-tensors unpacks its own, and rounds inputs where the artifact does.
Layouts: AutoGPTQ's `qweight` (input * bits / 32, output), packed along the inputs; AutoAWQ's GEMM `qweight` (input, output * bits / 32).
"""

from pathlib import Path
from typing import Any

from producer.models.weight_files import weight_files
from schemas.errors import UsageError

WORD = 32
GPTQ_BITS, AWQ_BITS = (2, 4, 8), (4,)  # GPTQ's 3 bits straddle words
AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)  # which field of a word holds its first, second, ... column


def packed_format(config: Any) -> str:
    """Return "gptq" or "awq" for a checkpoint packed so, "" for any other."""
    found = _settings(config).get("quant_method", "")
    name = str(getattr(found, "value", found))
    return name if name in ("gptq", "awq") else ""


def load_packed(folder: Path, config: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Return the model with its weights dequantized, and transformers' report; `options` are those of `from_pretrained`."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    stored, dtype = config.quantization_config, options["dtype"]
    tensors = _read(folder)
    for layer in [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]:
        parts = {part: tensors.pop(f"{layer}.{part}", None) for part in ("qweight", "qzeros", "scales", "g_idx")}
        tensors[f"{layer}.weight"] = dequantize(parts, _settings(config)).to(parts["scales"].dtype if dtype == "auto" else dtype)
    del config.quantization_config
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    model, report = kind.from_pretrained(None, config=config, state_dict=tensors, output_loading_info=True, **options)
    model.config.quantization_config = stored  # what it was stored as is recorded with the run
    return model, report


def stored_by_compressed_tensors(config: Any) -> bool:
    """Return whether a checkpoint is one of compressed-tensors."""
    return str(_settings(config).get("quant_method", "")) == "compressed-tensors"


def settle_compressed(model: Any) -> None:
    """Give every layer that compressed-tensors wrapped a plain forward pass, with hooks that round its inputs and outputs as stored.

    Its own forward pass takes the weight out and puts it back each time, which two batches at once must not do.
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
    """Raise UsageError for a packed checkpoint of other bits or another version than the layouts above; reads no weights."""
    name, settings = packed_format(config), _settings(config)
    if not name:
        return
    bits, version = settings.get("bits", 4), str(settings.get("version", "gemm")).lower()
    known = GPTQ_BITS if name == "gptq" else AWQ_BITS
    if bits not in known:
        raise UsageError(f"a {name} checkpoint of {bits} bits cannot be unpacked; bits that can: {', '.join(map(str, known))}")
    if name == "awq" and version != "gemm":
        raise UsageError(f"an awq checkpoint of version {version!r} cannot be unpacked; version 'gemm' can")


def dequantize(parts: dict[str, Any], settings: dict[str, Any]) -> Any:
    """Return a layer's weight, (output, input) float32.

    parts : `qweight`, `qzeros` (group, output * bits / 32), `scales` (group, output), and GPTQ's `g_idx` (input,), the group of each input.
    """
    import torch

    bits, gptq = settings.get("bits", 4), settings["quant_method"] == "gptq"
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


def _settings(config: Any) -> dict[str, Any]:
    stored = getattr(config, "quantization_config", None) or {}
    return stored if isinstance(stored, dict) else dict(stored.to_dict())


def _read(folder: Path) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    tensors: dict[str, Any] = {}
    for path in weight_files(folder):
        tensors |= load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    return tensors
