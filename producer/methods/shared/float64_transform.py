"""Transform a model in float64, layer by layer, and measure in float64 how much the transformation alone changes its logits.

In: a model, a few tokens, a transformation.  Out: the transformed model in its own dtype, and the change of its logits.
Measured in 16 bits, the change would mostly be the effect of rounding the new weights, which in a mixture of experts routes tokens to
other experts: correct rotations were refused for that reason, and wrong ones passed.
"""

from copy import deepcopy
from typing import Any, Protocol

from producer.methods.shared.layerwise import first_inputs, moved
from producer.methods.shared.post_conditions import relative_change
from producer.methods.shared.residual_stream import untie
from schemas.errors import PostConditionError

ROUNDING = 1e-5  # largest change due to rounding, as a share of the logits' range: transformers computes norms and routers in float32


class Transformation(Protocol):
    """Transforms each module of a model in turn; the modules are in float64 and on one device."""

    def embedding(self, embedding: Any) -> None:
        """Transform the token embeddings in place."""

    def layer(self, number: int, layer: Any) -> Any:
        """Return the transformed decoder layer: the same module or another one."""

    def head(self, norm: Any, head: Any) -> None:
        """Transform the last norm and the head in place."""


def transform(model: Any, transformation: Transformation, ids: Any, device: Any = None) -> float:
    """Transform a model in place and return the largest change of a logit, as a share of the logits' range, measured in float64.

    ids    : (sequence, token) token ids on which the change is measured.
    device : device on which modules are transformed, one at a time; None for the model's own.
    """
    import torch

    untie(model)
    body, device = model.model, device or model.device
    with torch.no_grad():
        [states], [calls] = first_inputs(model, [ids])
        dense = states.to(device, torch.float64)
        embedding = _exact(body.embed_tokens, model, device)
        transformation.embedding(embedding)
        rotated = embedding(ids.to(device))
        body.embed_tokens = _stored(embedding, model)
        for number, layer in enumerate(body.layers):
            exact, keywords = _exact(layer, model, device), moved(calls[number].keywords, device, torch.float64)
            dense = exact(dense, **keywords)
            exact = transformation.layer(number, exact)
            rotated = exact(rotated, **keywords)
            body.layers[number] = _stored(exact, model)
        norm, head = _exact(body.norm, model, device), _exact(model.lm_head, model, device)
        before = head(norm(dense))
        transformation.head(norm, head)
        after = head(norm(rotated))
        body.norm, model.lm_head = _stored(norm, model), _stored(head, model)
    return relative_change(after, before)


def require_same_function(change: float, what: str) -> float:
    """Return the change of the logits. Raises PostConditionError if it is larger than rounding explains."""
    if not change <= ROUNDING:
        raise PostConditionError(f"{what} alone changed logits by {change:.2g} of their range; rounding explains at most {ROUNDING:g}")
    return change


def _exact(module: Any, model: Any, device: Any) -> Any:
    """Return a copy in float64 that shares the model's config, because the attention function is selected through the config."""
    import torch

    return deepcopy(module, {id(model.config): model.config}).to(device, torch.float64)


def _stored(module: Any, model: Any) -> Any:
    return module.to(model.lm_head.weight.device, model.lm_head.weight.dtype)
