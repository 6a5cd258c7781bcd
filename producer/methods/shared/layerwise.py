"""Work on a model layer by layer: one layer at a time on a device, while a model too large for the device stays on the host.

In: a model, token ids.  Out: each decoder layer on the device, with its inputs or its gradients.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any


@contextlib.contextmanager
def on_device(module: Any, device: Any) -> Iterator[None]:
    """Move a module to a device for the `with` block and back afterwards; None leaves it where it is."""
    home = next(module.parameters()).device
    module.to(device or home)
    yield
    module.to(home)


def layer_inputs(model: Any, batches: Iterable[Any], device: Any = None) -> Iterator[tuple[Any, Callable[..., None]]]:
    """Yield each decoder layer with a function that runs it on all batches.

    batches : token ids, (sequence, token) each.
    The function discards the layer's outputs, except with `advance=True`: then they become the inputs of the next layer. Make the
    `advance=True` call last.
    """
    home, working = model.device, device or model.device
    states, arguments = first_inputs(model, batches)
    for layer in model.model.layers:

        def run(advance: bool = False, layer: Any = layer) -> None:
            for number, (state, keywords) in enumerate(zip(states, arguments, strict=True)):
                output = layer(state.to(working), **moved(keywords, working))
                if advance:
                    states[number] = output.to(home)

        with on_device(layer, working):
            yield layer, run


def layer_gradients(model: Any, batches: Sequence[Any], device: Any = None) -> Iterator[Any]:
    """Yield each decoder layer, last first, with the gradients of the next token's loss in its weights, summed over batches.

    batches : token ids, (sequence, token) each; a batch's loss is the mean over its tokens, in nats.
    Only the inputs of every layer are kept, in RAM; other intermediate results are recomputed.
    """
    import torch

    working, (states, arguments) = device or model.device, first_inputs(model, batches)
    inputs = []
    model.requires_grad_(False)
    for layer in model.model.layers:
        inputs.append([state.cpu() for state in states])
        with on_device(layer, working), torch.no_grad():
            states = [layer(state.to(working), **moved(kept, working)).cpu() for state, kept in zip(states, arguments, strict=True)]
    with on_device(model.model.norm, working), on_device(model.lm_head, working):
        gradients = [_loss_gradient(model, state.to(working), ids.to(working)).cpu() for state, ids in zip(states, batches, strict=True)]
    for layer in reversed(model.model.layers):
        layer.requires_grad_(True)
        with on_device(layer, working):
            pairs = zip(inputs.pop(), gradients, strict=True)
            gradients = [
                _input_gradient(layer, state.to(working), moved(kept, working), gradient.to(working)).cpu()
                for (state, gradient), kept in zip(pairs, arguments, strict=True)
            ]
            yield layer
        layer.zero_grad()
        layer.requires_grad_(False)


def first_inputs(model: Any, batches: Iterable[Any]) -> tuple[list[Any], list[dict[str, Any]]]:
    """Return the arguments of the first decoder layer for every batch: hidden states, and keyword arguments (mask, positions)."""
    states: list[Any] = []
    arguments: list[dict[str, Any]] = []

    def catch(layer: Any, positional: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        states.append(positional[0])
        arguments.append(keywords)
        raise _CaughtError

    hook = model.model.layers[0].register_forward_pre_hook(catch, with_kwargs=True)
    try:
        for ids in batches:
            with contextlib.suppress(_CaughtError):
                model(input_ids=ids.to(model.device), use_cache=False)
    finally:
        hook.remove()
    return states, arguments


def moved(value: Any, device: Any, dtype: Any = None) -> Any:
    """Return a layer's keyword arguments with every tensor on a device, and floating-point tensors in `dtype` unless that is None."""
    import torch

    if isinstance(value, dict):
        return {name: moved(part, device, dtype) for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(moved(part, device, dtype) for part in value)
    return value.to(device=device, dtype=dtype if value.is_floating_point() else None) if torch.is_tensor(value) else value


class _CaughtError(Exception):
    """Ends a forward pass before the first decoder layer."""


def _loss_gradient(model: Any, states: Any, ids: Any) -> Any:
    """Return the gradient of the next token's loss with respect to the last states; one sequence at a time to save memory."""
    import torch

    gradients = []
    for hidden, sequence in zip(states.detach(), ids, strict=True):
        variable = hidden.requires_grad_()
        logits = model.lm_head(model.model.norm(variable))[:-1].float()
        loss = torch.nn.functional.cross_entropy(logits, sequence[1:], reduction="sum") / ids.numel()
        gradients += torch.autograd.grad(loss, variable)
    return torch.stack(gradients)


def _input_gradient(layer: Any, states: Any, keywords: dict[str, Any], gradient: Any) -> Any:
    """Return the gradient with respect to a layer's inputs; gradients of its weights are added to `.grad`."""
    states = states.detach().requires_grad_()
    layer(states, **keywords).backward(gradient)
    return states.grad
