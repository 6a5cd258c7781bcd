"""The linear layers that methods compress: all those of the decoder layers, but not the embedding, the head or the routers.

In: a model whose fused experts `split_experts` has replaced by linear layers.  Out: its linear layers by name.
"""

from collections.abc import Iterator
from typing import Any

PROBE_TOKENS = 48
BATCH = 8  # sequences per forward pass over compression data


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
    """Return token ids (sequence, token) to compare two models on: the start of the compression data, or evenly spread token ids."""
    import torch

    if data is not None:
        return torch.tensor([row[:PROBE_TOKENS] for row in data.input_ids[:2]], device=model.device)
    ids = torch.arange(2 * PROBE_TOKENS, device=model.device) * 7919 % model.config.vocab_size
    return ids.reshape(2, PROBE_TOKENS)
