"""Run one decoder layer on one batch, with the positions, mask and rotary embeddings that it needs.

In: hidden states, padded on the right, and how many prefix tokens precede them.  Out: hidden states after the layer.
Padding needs no mask: it follows every real token, and in causal attention no token attends to a later one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from producer.engine.attention import SharedPrefix, can_merge, check_used


@dataclass(frozen=True)
class Batch:
    """Some items between two layers, or a part of the shared prefix.

    items    : item numbers; empty for a part of the prefix.
    hidden   : (item, token, width), a tensor on any device or `StatesOnDisk`.
    last     : (item,) position of each item's last token.
    n_before : tokens of the shared prefix before the first token of this batch.
    """

    items: Sequence[int]
    hidden: Any
    last: Any
    n_before: int

    @property
    def tokens(self) -> int:
        """Number of tokens, padding included."""
        return int(self.hidden.shape[0] * self.hidden.shape[1])

    def halves(self) -> list["Batch"]:
        """Return two halves, split by items, or by tokens for a part of the prefix; a single item or token is not split."""
        middle = (len(self.items) or self.tokens) // 2
        if not middle:
            return [self]
        if self.items:
            return [self._part(slice(None, middle)), self._part(slice(middle, None))]
        first, second = self.hidden[:, :middle], self.hidden[:, middle:]
        return [replace(self, hidden=first), replace(self, hidden=second, n_before=self.n_before + middle)]

    def last_states(self) -> Any:
        """Return the hidden state of each item's last token, (item, width)."""
        import torch

        return self.hidden[torch.arange(len(self.items), device=self.hidden.device), self.last.to(self.hidden.device)]

    def _part(self, part: slice) -> "Batch":
        return replace(self, items=self.items[part], hidden=self.hidden[part], last=self.last[part])


def pad(sequences: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """Return token ids (item, token), padded on the right with 0, and the position of each sequence's last token, (item,)."""
    import torch

    width = max(map(len, sequences))
    ids = torch.tensor([[*sequence, *[0] * (width - len(sequence))] for sequence in sequences])
    return ids, torch.tensor([len(sequence) - 1 for sequence in sequences])


def run_layer(layer: Any, window: int | None, rotary: Any, batch: Batch, shared: SharedPrefix | None) -> Batch:
    """Return the batch after one layer, on the device its hidden states are on.

    window : how many tokens back the layer attends, None for all of them.
    rotary : (hidden states, positions) -> rotary embeddings.
    shared : this layer's keys and values of the shared prefix, None for a batch that does not use it.
    """
    import torch

    n_tokens = batch.hidden.shape[1]
    positions = torch.arange(batch.n_before, batch.n_before + n_tokens, device=batch.hidden.device)[None]
    out = layer(
        batch.hidden,
        attention_mask=_mask(batch, window, layer.self_attn.head_dim),
        position_ids=positions,
        past_key_values=None,
        use_cache=False,
        position_embeddings=rotary(batch.hidden, positions),
        shared=shared,
    )
    if shared is not None:
        check_used(shared, layer)
    return replace(batch, hidden=out[0] if isinstance(out, tuple) else out)


def _mask(batch: Batch, window: int | None, head_dim: int) -> Any:
    """Return the additive mask (1, 1, token, prefix token + token), or None where causal attention needs no explicit mask."""
    import torch

    device, n_tokens = batch.hidden.device, batch.hidden.shape[1]
    length = batch.n_before + n_tokens
    binding = window is not None and window < length
    if not binding and (batch.n_before == 0 or can_merge(batch.hidden, head_dim)):
        return None
    query = torch.arange(batch.n_before, length, device=device)[:, None]
    key = torch.arange(length, device=device)[None, :]
    hidden_from = key > query
    if window is not None and binding:
        hidden_from |= key <= query - window
    return torch.zeros(hidden_from.shape, dtype=batch.hidden.dtype, device=device).masked_fill_(hidden_from, -torch.inf)[None, None]
