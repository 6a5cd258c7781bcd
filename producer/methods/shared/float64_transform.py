"""Transform a model in float64, layer by layer, and measure there what that alone did to its logits.

In: a model, a few tokens, a transformation that should keep the function.  Out: the model, transformed and stored in its own dtype, and
how far its logits moved. In 16 bits the change would mostly be that of storing other weights, which in a mixture of experts sends tokens
to other experts: right rotations were refused for it, and wrong ones passed.
"""

from copy import deepcopy
from typing import Any, Protocol

from producer.methods.shared.layerwise import first_inputs, moved
from producer.methods.shared.post_conditions import relative_change
from producer.methods.shared.residual_stream import untie
from schemas.errors import PostConditionError

ROUNDING = 1e-5  # relative; layers compute in float64, but transformers' norms and routers in float32


class Transformation(Protocol):
    """What is done to float64 modules on one device, each in turn."""

    def embedding(self, embedding: Any) -> None:
        """Transform the token embeddings in place."""

    def layer(self, number: int, layer: Any) -> Any:
        """Return a decoder layer transformed, in place or as another module."""

    def head(self, norm: Any, head: Any) -> None:
        """Transform the last norm and the head in place."""


def transform(model: Any, transformation: Transformation, ids: Any, device: Any = None) -> float:
    """Transform a model in place and return the largest change of a logit over the logits' range, both in float64.

    ids : (sequence, token) to measure it on; device : where a module is worked on, None where the model lies.
    """
    import torch

    untie(model)
    body, place = model.model, device or model.device
    with torch.no_grad():
        [states], [keywords] = first_inputs(model, [ids])
        keywords, dense = moved(keywords, place, torch.float64), states.to(place, torch.float64)
        embedding = _exact(body.embed_tokens, model, place)
        transformation.embedding(embedding)
        turned = embedding(ids.to(place))
        body.embed_tokens = _stored(embedding, model)
        for number, layer in enumerate(body.layers):
            exact = _exact(layer, model, place)
            dense = exact(dense, **keywords)
            exact = transformation.layer(number, exact)
            turned = exact(turned, **keywords)
            body.layers[number] = _stored(exact, model)
        norm, head = _exact(body.norm, model, place), _exact(model.lm_head, model, place)
        before = head(norm(dense))
        transformation.head(norm, head)
        after = head(norm(turned))
        body.norm, model.lm_head = _stored(norm, model), _stored(head, model)
    return relative_change(after, before)


def require_same_function(change: float, what: str) -> float:
    """Return a change of logits. Raises PostConditionError where it is more than rounding."""
    if not change <= ROUNDING:
        raise PostConditionError(f"{what} alone moved logits by {change:.2g} of their range; at most {ROUNDING:g} is rounding")
    return change


def _exact(module: Any, model: Any, device: Any) -> Any:
    """Return a copy in float64; its config stays the model's own, by which a caller says how its layers attend."""
    import torch

    return deepcopy(module, {id(model.config): model.config}).to(device, torch.float64)


def _stored(module: Any, model: Any) -> Any:
    return module.to(model.lm_head.weight.device, model.lm_head.weight.dtype)
