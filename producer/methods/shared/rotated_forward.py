"""A model as a differentiable function of its rotations, for SpinQuant.

In: a dense model, rotations R1 and R2 as variables.  Out: the divergence of the rotated model with rounded activations from the dense one.
Backpropagation needs the intermediate results of the forward pass, which for all layers take many times the model's memory. So only the
input of every layer is kept and the rest is recomputed; the head is computed one sequence at a time.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from producer.methods.shared.layerwise import first_inputs, layer_inputs, moved
from producer.methods.shared.linear_layers import target_layers
from producer.methods.shared.number_formats import wide
from producer.methods.shared.quantization import RoundInput
from producer.methods.shared.residual_stream import fuse, fuse_norms, mlp_writers, untie
from producer.methods.shared.rotation import RotateInput, Rotations, rotated_weights


class RoundStraightThrough(RoundInput):
    """Rounding with a straight-through gradient: the gradient treats the rounding error in steps as constant, but not the size of a step.

    A rotation helps by making the steps smaller. A gradient that also treats the step size as constant misses that: the loss barely fell.
    A clipped value changes with the step alone.
    Source: Esser et al. 2020 (arXiv:1902.08153) equation 3, for a scale computed from each token.
    """

    def __call__(self, layer: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the layer's arguments with the first of them, (..., channel), rounded."""
        import torch

        x = wide(arguments[0])
        scale = self.scale(x)
        x = torch.minimum(torch.maximum(x, -(self.largest + 1) * scale), self.largest * scale)
        steps = x / scale
        return ((x + scale * (steps.round() - steps).detach()).to(arguments[0].dtype), *arguments[1:])


class DenseStates(NamedTuple):
    """A batch and the dense model's hidden states for it, which the rotated model should reproduce.

    ids      : (sequence, token) token ids.
    keywords : the keyword arguments of every decoder layer.
    states   : (sequence, token, width) hidden states after the last layer.
    """

    ids: Any
    keywords: list[dict[str, Any]]
    states: Any


def dense_states(model: Any, batches: Sequence[Any], device: Any) -> list[DenseStates]:
    """Return the dense model's hidden states on batches of token ids, (sequence, token) each."""
    import torch

    states: list[Any] = []
    hook = model.model.layers[-1].register_forward_hook(lambda _, __, output: states.append(output))
    with torch.no_grad():
        for _, run in layer_inputs(model, batches, device):
            run(advance=True)
    hook.remove()
    _, calls = first_inputs(model, batches)
    keywords = [[moved(call.keywords, device) for call in of_layers] for of_layers in calls]
    return [DenseStates(ids, arguments, last) for ids, arguments, last in zip(batches, keywords, states, strict=True)]


@contextmanager
def rotated(model: Any, rotations: Rotations, rounding: RoundStraightThrough, device: Any) -> Iterator["RotatedModel"]:
    """Yield a model as a function of R1 and R2, with R4 applied and inputs rounded; the norms stay fused after the block."""
    untie(model.requires_grad_(False))
    for layer in model.model.layers:
        fuse_norms(layer)
    fuse(model.model.norm, [model.lm_head])
    downs = [down for layer in model.model.layers for down in mlp_writers(layer)]
    hooks = [down.register_forward_pre_hook(RotateInput(*rotations.down[down.weight.shape[1]])) for down in downs]
    hooks += [target.register_forward_pre_hook(rounding) for target in target_layers(model).values()]
    try:
        yield RotatedModel(model, rotations.down, device)
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class RotatedModel:
    """A model as a function of R1 and R2. It computes on `device`, to which weights are copied layer by layer if they are elsewhere."""

    model: Any
    down: dict[int, tuple[Any, Any]]
    device: Any

    def loss(self, variables: Sequence[Any], target: DenseStates) -> Any:
        """Return the mean KL divergence (nats per token) of the rotated model's predictions from the dense ones.

        variables : R1, then the R2 of every layer.
        """
        from torch.utils.checkpoint import checkpoint

        recompute = partial(checkpoint, use_reentrant=False)
        stream, *values = (variable.to(self.model.dtype) for variable in variables)
        hidden = self.model.model.embed_tokens(target.ids).to(self.device) @ stream
        for layer, r2, keywords in zip(self.model.model.layers, values, target.keywords, strict=True):
            hidden = recompute(self._layer, layer, stream, r2, hidden, keywords)
        last = hidden @ stream.T  # gives the same logits as rotating the head, without a (vocabulary, width) product
        return sum(recompute(self._divergence, *pair) for pair in zip(last, target.states, strict=True)) / target.ids.numel()

    def _layer(self, layer: Any, stream: Any, values: Any, hidden: Any, keywords: dict[str, Any]) -> Any:
        import torch

        parameters = self._weights(layer)
        changed = rotated_weights(layer, parameters, stream, values, self.down)
        return torch.func.functional_call(layer, parameters | changed, (hidden,), keywords)

    def _divergence(self, rotated: Any, dense: Any) -> Any:
        """Return the divergence of one sequence's predictions in nats, from hidden states (token, width)."""
        import torch

        rotated_logs, dense_logs = (self._logits(states).float().log_softmax(-1) for states in (rotated, dense))
        return torch.nn.functional.kl_div(rotated_logs, dense_logs, log_target=True, reduction="sum")

    def _logits(self, states: Any) -> Any:
        import torch

        for module in (self.model.model.norm, self.model.lm_head):
            states = torch.func.functional_call(module, self._weights(module), (states,))
        return states

    def _weights(self, module: Any) -> dict[str, Any]:
        return {name: weight.to(self.device) for name, weight in module.named_parameters()}
