"""Folders of weights packed as AutoGPTQ and AutoAWQ pack them, beside the same model with plain weights."""

from pathlib import Path
from typing import Any

import torch
from producer_tiny import tiny

from producer.methods.shared.linear_layers import target_layers


def into_words(values: Any, bits: int, order: Any) -> Any:
    """Pack unsigned integers (row, column) into int32 words, field by field; `order` says which column a field holds."""
    import numpy as np

    fields = 32 // bits
    blocks = np.asarray(values, dtype=np.uint64).reshape(len(values), -1, fields)
    words = np.zeros(blocks.shape[:2], dtype=np.uint64)
    for field in range(fields):
        words |= blocks[:, :, order[field]] << np.uint64(bits * field)
    return torch.from_numpy(words.astype(np.uint32).view(np.int32).copy())


def packed_folder(path: Path, quantization: dict[str, Any]) -> Any:
    """Save a tiny model packed as AutoGPTQ or AutoAWQ do, and return the same model with plain weights."""
    from safetensors.torch import save_file

    bits, group, gptq = quantization["bits"], 16, quantization["quant_method"] == "gptq"
    order = range(32 // bits) if gptq else (0, 2, 4, 6, 1, 3, 5, 7)
    model, draw = tiny(), torch.Generator().manual_seed(0)
    tensors = {name: w for name, w in model.state_dict().items() if "_proj." not in name}
    for name, layer in target_layers(model).items():
        rows, columns = layer.weight.shape
        q = torch.randint(0, 2**bits, (columns, rows), generator=draw)
        zeros = torch.randint(1, 2**bits, (columns // group, rows), generator=draw)
        scales = torch.rand(columns // group, rows, generator=draw) / 2**bits
        groups = torch.arange(columns).flip(0) // group if gptq else torch.arange(columns) // group  # columns taken in another order
        layer.weight.data = ((q - zeros[groups]) * scales[groups]).T.contiguous()
        tensors[f"{name}.qweight"] = into_words(q.T, bits, order).T.contiguous() if gptq else into_words(q, bits, order)
        tensors |= {f"{name}.qzeros": into_words(zeros - (1 if gptq else 0), bits, order), f"{name}.scales": scales}
        if gptq:
            tensors[f"{name}.g_idx"] = groups.int()
    save_file(tensors, path / "model.safetensors")
    model.config.quantization_config = quantization
    model.config.save_pretrained(path)
    return model
