"""The linear layers that methods compress: all those of the decoder layers, but not the embedding, the head or the routers.

In: a model, with weights or on the meta device.  Out: its decoder layers and their linear layers by name, and how much of the decoder
layers' matrices these are. `producer.methods.shared.make_linear` writes fused experts and GPT-2's transposed layers as linear layers first.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

PROBE_TOKENS = 48
BATCH = 8  # sequences per forward pass over compression data
ROUTERS = ("gate", "router", "wg", "shared_expert_gate")  # names of layers that say which experts a token goes to, or how much
# Experts in one tensor, (expert, row, column), that llm-compressor 0.14 cannot take apart: it looks for settings these do not have.
INSEPARABLE = ("Llama4TextExperts", "MiniMaxM3VLExperts")
GROUPED = ("DeepseekV4GroupedLinear",)  # classes of linear layers whose rows do not all read the same inputs


class Reached(NamedTuple):
    """share : of the numbers in all matrices of the decoder layers, those in layers to compress; missed : names of the other matrices."""

    share: float
    missed: list[str]


def target_layers(model: Any) -> dict[str, Any]:
    """Return every linear layer to compress, by its name in the model, in the model's order."""
    import torch

    targets: dict[str, Any] = {}
    for prefix, layer in decoder_layers(model).items():
        linear = ((f"{prefix}.{name}", module) for name, module in layer.named_modules() if isinstance(module, torch.nn.Linear))
        targets |= {name: module for name, module in linear if not _is_router(name) and type(module).__name__ not in GROUPED}
    return targets


def kept_layers(model: Any) -> list[str]:
    """Return the names of all other linear layers: head, routers, and projections beside the decoder layers."""
    import torch

    targets = {id(module) for module in target_layers(model).values()}
    return [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and id(module) not in targets]


def decoder_layers(model: Any) -> dict[str, Any]:
    """Return the layers of the text decoder, by name, in the order in which they are numbered."""
    names = {id(module): name for name, module in model.named_modules()}
    layers = _numbered(model.get_decoder()) or _numbered(model)
    return {names[id(layer)]: layer for layer in layers}


def reached(model: Any) -> Reached:
    """Return how much of the decoder layers' matrices the methods reach; fused experts that can be taken apart count as reached."""
    ours = {id(parameter) for module in target_layers(model).values() for parameter in module.parameters()}
    ours |= {id(parameter) for module in fused_experts(model).values() for parameter in module.parameters()}
    matrices = {
        id(parameter): (f"{name}.{inner}", parameter)
        for name, layer in decoder_layers(model).items()
        for inner, parameter in layer.named_parameters()
        if parameter.ndim > 1 and not inner.endswith("bias")
    }
    total = sum(parameter.numel() for _, parameter in matrices.values())
    missed = [(name, parameter.numel()) for key, (name, parameter) in matrices.items() if key not in ours]
    missed.sort(key=lambda pair: -pair[1])
    return Reached(1 - sum(size for _, size in missed) / total if total else 0.0, [name for name, _ in missed])


def fused_experts(model: Any) -> dict[str, Any]:
    """Return the modules that hold the weights of all experts in one tensor and can be taken apart, by name."""
    return {
        f"{prefix}.{name}": module
        for prefix, layer in decoder_layers(model).items()
        for name, module in layer.named_modules()
        if _is_fused(module) and type(module).__name__ not in INSEPARABLE
    }


def token_batches(data: Any) -> Iterator[Any]:
    """Yield compression data as token ids, (sequence, token) each."""
    import torch

    for start in range(0, len(data.input_ids), BATCH):
        yield torch.tensor(data.input_ids[start : start + BATCH])


def probe_tokens(model: Any, data: Any) -> Any:
    """Return token ids (sequence, token) to compare two models on: the start of the compression data, or evenly spread token ids."""
    import torch

    if data is not None:
        return torch.tensor([row[:PROBE_TOKENS] for row in data.input_ids[:2]], device=model.device)
    ids = torch.arange(2 * PROBE_TOKENS, device=model.device) * 7919 % model.config.get_text_config().vocab_size
    return ids.reshape(2, PROBE_TOKENS)


def _numbered(module: Any) -> list[Any]:
    """Return the entries of the outermost lists of modules, those without a matrix excepted (such as rotary embeddings)."""
    import torch

    if isinstance(module, torch.nn.ModuleList):
        return [entry for entry in module if any(parameter.ndim > 1 for parameter in entry.parameters())]
    return [entry for child in module.children() for entry in _numbered(child)]


def _is_router(name: str) -> bool:
    return any(part in ROUTERS for part in name.split(".")[-2:])


def _is_fused(module: Any) -> bool:
    down, up = getattr(module, "down_proj", None), getattr(module, "gate_up_proj", None)
    up = getattr(module, "up_proj", None) if up is None else up
    return all(getattr(each, "ndim", 0) == 3 for each in (down, up))
