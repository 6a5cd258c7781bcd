"""A model as a function of its rotations: what SpinQuant differentiates.

In: a dense model, rotations R1 and R2 as variables.  Out: the divergence of the rotated model, activations rounded, from the dense one.
A gradient needs what the forward pass computed. Kept for all layers that is many times the model, so of each layer only the input is
kept and the rest computed again, on the device asked for; of the head, one sequence at a time.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from producer.methods.shared.layerwise import first_inputs, layer_inputs, moved
from producer.methods.shared.linear_layers import target_layers
from producer.methods.shared.quantization import RoundInput, wide
from producer.methods.shared.residual_stream import fuse, fuse_norms, mlp_writers, untie
from producer.methods.shared.rotation import RotateInput, Rotations, rotated_weights


class RoundStraightThrough(RoundInput):
    """Rounding with a gradient: the share of a step that is rounded away is held fixed (straight through), the step itself is not.

    A rotation helps by making the steps smaller, which a gradient that holds the scale too cannot see: with that one the loss barely fell.
    Source: Esser et al. 2020 (arXiv:1902.08153) equation 3, for a scale that is found as it comes.
    """

    def __call__(self, layer: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments with the first, (..., channel), rounded."""
        x = wide(arguments[0])
        steps = x / self.scale(x)
        return ((x + self.scale(x) * (steps.round() - steps).detach()).to(arguments[0].dtype), *arguments[1:])


class Lesson(NamedTuple):
    """Token ids (sequence, token), what decoder layers need beside them, and the dense model's last states (sequence, token, width)."""

    ids: Any
    keywords: dict[str, Any]
    states: Any


def dense_lessons(model: Any, batches: Sequence[Any], device: Any) -> list[Lesson]:
    """Return what there is to learn from batches of token ids, (sequence, token) each."""
    import torch

    states: list[Any] = []
    hook = model.model.layers[-1].register_forward_hook(lambda _, __, output: states.append(output))
    with torch.no_grad():
        for _, run in layer_inputs(model, batches, device):
            run(advance=True)
    hook.remove()
    _, keywords = first_inputs(model, batches)
    return [Lesson(ids, moved(kept, device), last) for ids, kept, last in zip(batches, keywords, states, strict=True)]


@contextmanager
def rotated(model: Any, rotations: Rotations, bits: int, device: Any) -> Iterator["RotatedModel"]:
    """Within it a model, its norms fused for good, has R4 in place, rounds inputs to `bits` and waits for R1 and R2."""
    untie(model.requires_grad_(False))
    for layer in model.model.layers:
        fuse_norms(layer)
    fuse(model.model.norm, [model.lm_head])
    downs = [down for layer in model.model.layers for down in mlp_writers(layer)]
    hooks = [down.register_forward_pre_hook(RotateInput(*rotations.down[down.weight.shape[1]])) for down in downs]
    hooks += [target.register_forward_pre_hook(RoundStraightThrough(bits)) for target in target_layers(model).values()]
    try:
        yield RotatedModel(model, rotations.down, device)
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class RotatedModel:
    """A function of R1 and R2 that computes on a device, to which the model's weights come layer by layer if they are not there."""

    model: Any
    down: dict[int, tuple[Any, Any]]
    device: Any

    def loss(self, variables: Sequence[Any], lesson: Lesson) -> Any:
        """Return the mean Kullback-Leibler divergence (nats per token) of dense from rotated predictions. variables: R1, then every R2."""
        from torch.utils.checkpoint import checkpoint

        again = partial(checkpoint, use_reentrant=False)
        stream, *values = (variable.to(self.model.dtype) for variable in variables)
        hidden = self.model.model.embed_tokens(lesson.ids).to(self.device) @ stream
        for layer, turn in zip(self.model.model.layers, values, strict=True):
            hidden = again(self._layer, layer, stream, turn, hidden, lesson.keywords)
        last = hidden @ stream.T  # as good as a rotated norm and head, and no (vocabulary, width) product
        return sum(again(self._divergence, *pair) for pair in zip(last, lesson.states, strict=True)) / lesson.ids.numel()

    def _layer(self, layer: Any, stream: Any, turn: Any, hidden: Any, keywords: dict[str, Any]) -> Any:
        import torch

        own = self._weights(layer)
        return torch.func.functional_call(layer, own | rotated_weights(layer, own, stream, turn, self.down), (hidden,), keywords)

    def _divergence(self, rotated: Any, dense: Any) -> Any:
        """Return the divergence of one sequence's predictions, nats; both are last states (token, width)."""
        import torch

        found, target = (self._logits(states).float().log_softmax(-1) for states in (rotated, dense))
        return torch.nn.functional.kl_div(found, target, log_target=True, reduction="sum")

    def _logits(self, states: Any) -> Any:
        import torch

        for module in (self.model.model.norm, self.model.lm_head):
            states = torch.func.functional_call(module, self._weights(module), (states,))
        return states

    def _weights(self, module: Any) -> dict[str, Any]:
        return {name: weight.to(self.device) for name, weight in module.named_parameters()}
