"""One decoder layer on one batch, with everything it needs beside the hidden states.

In: token ids, padded on the right, and how many tokens come before them.  Out: hidden states after a layer.
Padding needs no mask: it comes after every real token, and no real token looks ahead.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from producer.engine.skeleton import Skeleton


@dataclass(frozen=True)
class Geometry:
    """Positions of a batch, the same for every layer: `n_before` shared tokens, then `n_tokens` own ones."""

    n_before: int
    n_tokens: int
    position_ids: Any
    rotation: Any
    masks: dict[int | None, Any] = field(default_factory=dict)

    def mask(self, window: int | None, like: Any) -> Any:
        """Return the additive mask (1, 1, token, before + token) of a layer, or None where plain causal order is all there is."""
        length = self.n_before + self.n_tokens
        if self.n_before == 0 and (window is None or window >= length):
            return None
        if window not in self.masks:
            self.masks[window] = _additive_mask(self, window, like)
        return self.masks[window]


def pad(sequences: Sequence[Sequence[int]], device: Any) -> Any:
    """Return token ids (item, token), padded on the right with 0, which nothing looks at."""
    import torch

    width = max(map(len, sequences))
    return torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in sequences], device=device)


def geometry(skeleton: Skeleton, hidden: Any, n_before: int) -> Geometry:
    """Return the positions of a batch of embedded tokens (item, token, width)."""
    import torch

    n_tokens = hidden.shape[1]
    position_ids = torch.arange(n_before, n_before + n_tokens, device=hidden.device)[None]
    return Geometry(n_before, n_tokens, position_ids, skeleton.rotary(hidden, position_ids))


def run_layer(layer: Any, window: int | None, hidden: Any, where: Geometry, cache: Any) -> Any:
    """Return the hidden states (item, token, width) after one layer; `cache` records or lends the prefix."""
    out = layer(
        hidden,
        attention_mask=where.mask(window, hidden),
        position_ids=where.position_ids,
        past_key_values=cache,
        use_cache=cache is not None,
        position_embeddings=where.rotation,
    )
    return out[0] if isinstance(out, tuple) else out


def _additive_mask(where: Geometry, window: int | None, like: Any) -> Any:
    import torch

    query = torch.arange(where.n_before, where.n_before + where.n_tokens, device=like.device)[:, None]
    key = torch.arange(where.n_before + where.n_tokens, device=like.device)[None, :]
    hidden = (key > query) if window is None else (key > query) | (key <= query - window)
    return torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill_(hidden, -torch.inf)[None, None]
