"""The shared prefix: its keys and values are computed once and lent to every item.

These stand where transformers expects a cache object: an attention layer hands its new keys and values to `update` and attends to
what comes back. Shapes come from the tensors, since compressed layers may differ in their number of heads.
"""

from typing import Any


class Recorder:
    """Keeps the keys and values of the prefix, by layer."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Any, Any]] = {}

    def update(self, keys: Any, values: Any, layer_idx: int, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Keep (1, head, token, width) keys and values and return them unchanged."""
        self.layers[layer_idx] = (keys, values)
        return keys, values


class Lender:
    """Puts the prefix before each item's own keys and values, and keeps nothing."""

    def __init__(self, recorder: Recorder) -> None:
        self.layers = recorder.layers

    def update(self, keys: Any, values: Any, layer_idx: int, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Return (item, head, prefix + token, width) keys and values."""
        import torch

        before_keys, before_values = self.layers[layer_idx]
        n_items = keys.shape[0]
        return (
            torch.cat([before_keys.expand(n_items, -1, -1, -1), keys], dim=2),
            torch.cat([before_values.expand(n_items, -1, -1, -1), values], dim=2),
        )
