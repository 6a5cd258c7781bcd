"""What is copied where no kernel merges a shared prefix: its keys and values before those of every item, and a mask over both.

In: a model, prompts.  Out: `Copies`; what an item and a token take more on a device, and how many tokens still fit in a batch then.
`producer.engine.step` makes them: in a layer whose window is shorter than a prompt, and in all layers where `merges_on` says no.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from producer.engine.attention import merges_on
from producer.engine.skeleton import take_apart
from producer.prompts.encode import Prompts


class LayerCopies(NamedTuple):
    """How wide a layer's heads are, whether its window binds, and what an item's copies of the prefix take (bytes)."""

    head_dim: int
    windowed: bool
    item: int


class Extra(NamedTuple):
    """Bytes that an item takes beside its tokens, and a token beside its activations."""

    item: int
    token: int


@dataclass(frozen=True)
class Copies:
    """What the layers copy if they have to.

    dtype   : of the run.
    layers  : in order; none where nothing is ever copied.
    mask    : bytes of a token's row of the mask, with the copy that a kernel makes where rows are not aligned.
    lengths : own tokens of the items that have the prefix.
    """

    dtype: Any = None
    layers: Sequence[LayerCopies] = ()
    mask: int = 0
    lengths: Sequence[int] = ()

    def on(self, device: str) -> Extra:
        """Return what a batch takes more on a device, in the layer that copies most."""
        made = [layer.item for layer in self.layers if layer.windowed or (layer.item and not merges_on(device, self.dtype, layer.head_dim))]
        return Extra(max(made, default=0), self.mask if made else 0)


def measure_copies(model: Any, dtype: Any, prompts: Prompts) -> Copies:
    """Return what a model's layers copy for these prompts if they have to."""
    layers, windows = model.model.layers, take_apart(model).windows
    n_tokens = len(prompts.prefix) + max(map(len, prompts.suffixes))
    copies = [
        LayerCopies(
            head_dim=layer.self_attn.head_dim,
            windowed=window is not None and window < n_tokens,
            item=len(prompts.prefix) * _floats(layer.self_attn) * dtype.itemsize,
        )
        for layer, window in zip(layers, windows, strict=True)
    ]
    own = [len(suffix) for suffix, is_cut in zip(prompts.suffixes, prompts.cut, strict=True) if not is_cut]
    return Copies(dtype, copies, 2 * n_tokens * dtype.itemsize, own)


def tokens_that_fit(lengths: Sequence[int], each: Extra, room: int) -> int:
    """Return the most padded tokens in a batch of which none can take more than the room, which holds the longest item.

    each : bytes of an item and of a token. The shorter its items are, the more of them are in a batch.
    """
    ascending = np.sort(np.asarray(lengths))
    fit = room // (ascending * each.token + each.item)
    scarce = fit < np.arange(1, len(fit) + 1)  # there are more items no longer than this one than fit
    return int((ascending * fit)[scarce].min(initial=np.iinfo(np.int64).max))


def _floats(attention: Any) -> int:
    """Return the numbers of a prefix token's keys and values before an item's own, and once more for each query head that shares them."""
    keys, values = attention.k_proj.weight.shape[0], attention.v_proj.weight.shape[0]
    groups = attention.q_proj.weight.shape[0] // max(keys, 1)
    return int((keys + values) * (1 + groups * (groups > 1)))
