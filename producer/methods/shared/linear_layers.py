"""The linear layers of a loaded model that methods compress: all inside the decoder layers, no embedding, head or router.

In: a model.  Out: its layers by name; fused experts are split into linear layers first, so that every expert is one of them.
"""

from collections.abc import Iterator
from typing import Any

from producer.methods.shared.architectures import is_moe

PROBE_TOKENS = 48
BATCH = 8  # sequences per forward pass over compression data


def split_experts(model: Any) -> Any:
    """Replace fused expert weights by one gated MLP of linear layers per expert, in place; the function is unchanged."""
    if not is_moe(model.config):
        return model
    from compressed_tensors.offload.module import remove_module_offload  # type: ignore[import-untyped]
    from llmcompressor.modeling.moe.linearize import linearize_moe

    from producer.methods.shared.llm_compressor import quiet

    with quiet():
        linearize_moe(model)
    for module in model.modules():
        if hasattr(module, "_original_forward_func"):  # a cache whose weights are overwritten in place, which no gradient survives
            remove_module_offload(module)
            del module.forward
    return model


def target_layers(model: Any) -> dict[str, Any]:
    """Return every linear layer to compress, by its name in the model, in the model's order."""
    import torch

    return {f"model.layers.{name}": m for name, m in model.model.layers.named_modules() if isinstance(m, torch.nn.Linear)}


def token_batches(data: Any) -> Iterator[Any]:
    """Yield compression data as token ids, (sequence, token) each."""
    import torch

    for start in range(0, len(data.input_ids), BATCH):
        yield torch.tensor(data.input_ids[start : start + BATCH])


def probe_tokens(model: Any, data: Any) -> Any:
    """Return a few tokens to compare two models on: (sequence, token); the start of the data, else evenly spaced token ids."""
    import torch

    if data is not None:
        return torch.tensor([row[:PROBE_TOKENS] for row in data.input_ids[:2]], device=model.device)
    ids = torch.arange(2 * PROBE_TOKENS, device=model.device) * 7919 % model.config.vocab_size
    return ids.reshape(2, PROBE_TOKENS)
