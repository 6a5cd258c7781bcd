"""A model as a function of its rotations: what SpinQuant differentiates.

In: a dense model, rotations R1 and R2 as variables.  Out: the divergence of the rotated model, activations rounded, from the dense one.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from producer.methods.layers import target_layers
from producer.methods.quantization import RoundInput
from producer.methods.rotation import RotateInput, Rotations
from producer.methods.structure import attention_readers, attention_writers, fuse_norms, mlp_readers, mlp_writers, replace_weight


class RoundStraightThrough(RoundInput):
    """Rounding with a gradient: the share of a step that is rounded away is held fixed (straight through), the step itself is not.

    A rotation helps by making the steps smaller, which a gradient that holds the scale too cannot see: with that one the loss barely fell.
    Source: Esser et al. 2020 (arXiv:1902.08153) equation 3, for a scale that is found as it comes.
    """

    def __call__(self, layer: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments with the first, (..., channel), rounded."""
        x = arguments[0]
        steps = x / self.scale(x)
        return (x + self.scale(x) * (steps.round() - steps).detach(), *arguments[1:])


class RotatedModel:
    """A copy of a dense model with fused norms, R4 in place and inputs rounded to `bits`, waiting for R1 and R2."""

    def __init__(self, model: Any, rotations: Rotations, bits: int) -> None:
        self.dense = model
        self.copy = deepcopy(model).requires_grad_(False)
        fuse_norms(self.copy)
        for layer in self.copy.model.layers:
            for down in mlp_writers(layer):
                hook = RotateInput(*rotations.down[down.weight.shape[1]])
                replace_weight(down, hook(down, (down.weight.double(),))[0])
                down.register_forward_pre_hook(hook)
        for target in target_layers(self.copy).values():
            target.register_forward_pre_hook(RoundStraightThrough(bits))
        self.names = {module: name for name, module in self.copy.named_modules()}

    def loss(self, variables: Sequence[Any], ids: Any) -> Any:
        """Return the mean Kullback-Leibler divergence (nats per token) of dense from rotated predictions. variables: R1, then every R2."""
        import torch

        with torch.no_grad():
            target = self.dense(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)
        keywords = {"input_ids": ids, "use_cache": False}
        logits = torch.func.functional_call(self.copy, self.weights(variables), (), keywords).logits
        return torch.nn.functional.kl_div(logits.float().log_softmax(-1), target, log_target=True, reduction="sum") / ids.numel()

    def weights(self, variables: Sequence[Any]) -> dict[str, Any]:
        """Return every weight that R1 or R2 touches, by name, as a function of them."""
        stream, *values = (variable.to(self.copy.dtype) for variable in variables)
        found = {m: m.weight @ stream for m in (self.copy.model.embed_tokens, self.copy.lm_head)}
        biases = {}
        for layer, turn in zip(self.copy.model.layers, values, strict=True):
            found |= {m: m.weight @ stream for m in attention_readers(layer) + mlp_readers(layer)}
            value, output, size = layer.self_attn.v_proj, layer.self_attn.o_proj, turn.shape[0]
            found[value] = (turn.T @ found[value].unflatten(0, (-1, size))).flatten(0, 1)
            if value.bias is not None:
                biases[value] = (value.bias.unflatten(0, (-1, size)) @ turn).flatten()
            found |= {m: stream.T @ m.weight for m in mlp_writers(layer)}
            found[output] = stream.T @ (output.weight.unflatten(1, (-1, size)) @ turn).flatten(1)
            written = attention_writers(layer) + mlp_writers(layer)
            biases |= {m: m.bias @ stream for m in written if m.bias is not None}
        weights = {f"{self.names[m]}.weight": weight for m, weight in found.items()}
        return weights | {f"{self.names[m]}.bias": bias for m, bias in biases.items()}
