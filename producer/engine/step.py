"""One decoder layer on one slab of items, with everything it needs beside the hidden states.

In: token ids, padded on the right, and how many tokens come before them.  Out: hidden states after a layer.
Padding needs no mask: it comes after every real token, and no real token looks ahead.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from producer.engine.attention import SharedPrefix, can_merge, check_touched


@dataclass(frozen=True)
class Slab:
    """Items under way through the layers.

    items     : item numbers, none for a part of the prefix; last: (item,) position of the last token.
    hidden    : (item, token, width), on whatever device they wait.
    n_before  : shared tokens before the first own one.
    """

    items: Sequence[int]
    hidden: Any
    last: Any
    n_before: int

    @property
    def tokens(self) -> int:
        """How many tokens, padding included."""
        return int(self.hidden.shape[0] * self.hidden.shape[1])

    def halves(self) -> list["Slab"]:
        """Return two slabs of half the items each, or of half the tokens of a part of the prefix; one alone is not cut."""
        middle = (len(self.items) or self.tokens) // 2
        if not middle:
            return [self]
        if self.items:
            return [self._part(slice(None, middle)), self._part(slice(middle, None))]
        first, second = self.hidden[:, :middle], self.hidden[:, middle:]
        return [replace(self, hidden=first), replace(self, hidden=second, n_before=self.n_before + middle)]

    def last_states(self) -> Any:
        """Return the hidden state of each item's last token (item, width)."""
        import torch

        return self.hidden[torch.arange(len(self.items), device=self.hidden.device), self.last.to(self.hidden.device)]

    def _part(self, part: slice) -> "Slab":
        return replace(self, items=self.items[part], hidden=self.hidden[part], last=self.last[part])


def pad(sequences: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """Return token ids (item, token), padded on the right with 0, which nothing looks at, and the last real positions (item,)."""
    import torch

    width = max(map(len, sequences))
    ids = torch.tensor([[*own, *[0] * (width - len(own))] for own in sequences])
    return ids, torch.tensor([len(own) - 1 for own in sequences])


def run_layer(layer: Any, window: int | None, rotary: Any, slab: Slab, shared: SharedPrefix | None) -> Slab:
    """Return the slab after one layer, on the device its hidden states are on."""
    import torch

    n_tokens = slab.hidden.shape[1]
    positions = torch.arange(slab.n_before, slab.n_before + n_tokens, device=slab.hidden.device)[None]
    out = layer(
        slab.hidden,
        attention_mask=_mask(slab, window, layer.self_attn.head_dim),
        position_ids=positions,
        past_key_values=None,
        use_cache=False,
        position_embeddings=rotary(slab.hidden, positions),
        shared=shared,
    )
    if shared is not None:
        check_touched(shared, layer)
    return replace(slab, hidden=out[0] if isinstance(out, tuple) else out)


def _mask(slab: Slab, window: int | None, head_dim: int) -> Any:
    """Return the additive mask (1, 1, token, before + token), or None where causal order is all there is."""
    import torch

    device, n_tokens = slab.hidden.device, slab.hidden.shape[1]
    length = slab.n_before + n_tokens
    binding = window is not None and window < length
    if not binding and (slab.n_before == 0 or can_merge(slab.hidden, head_dim)):
        return None
    query = torch.arange(slab.n_before, length, device=device)[:, None]
    key = torch.arange(length, device=device)[None, :]
    unseen = key > query
    if window is not None and binding:
        unseen |= key <= query - window
    return torch.zeros(unseen.shape, dtype=slab.hidden.dtype, device=device).masked_fill_(unseen, -torch.inf)[None, None]
