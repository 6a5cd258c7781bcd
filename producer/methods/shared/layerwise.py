"""Work on a model layer by layer: on the device asked for, wherever the model lies, which may be the host because it is too large.

In: a model, token ids.  Out: each decoder layer, on the device, with what reaches it: its inputs or its gradients.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any


@contextlib.contextmanager
def on_device(module: Any, device: Any) -> Iterator[None]:
    """Within it a module is on a device, None for where it is; then it goes back."""
    home = next(module.parameters()).device
    module.to(device or home)
    yield
    module.to(home)


def layer_inputs(model: Any, batches: Iterable[Any], device: Any = None) -> Iterator[tuple[Any, Callable[..., None]]]:
    """Yield each decoder layer with a function that runs it on all batches.

    batches : token ids, (sequence, token) each.
    The function drops the outputs; with `advance=True` they become the inputs of the next layer, so call it so last.
    """
    home, place = model.device, device or model.device
    states, arguments = first_inputs(model, batches)
    for layer in model.model.layers:

        def run(advance: bool = False, layer: Any = layer) -> None:
            for number, (state, keywords) in enumerate(zip(states, arguments, strict=True)):
                output = layer(state.to(place), **moved(keywords, place))
                if advance:
                    states[number] = output.to(home)

        with on_device(layer, place):
            yield layer, run


def layer_gradients(model: Any, batches: Sequence[Any], device: Any = None) -> Iterator[Any]:
    """Yield each decoder layer, last first, whose weights hold the gradients of the next token's loss, summed over batches.

    batches : token ids, (sequence, token) each; a batch's loss is in nats, the mean over its tokens.
    Only every layer's inputs are kept, on the host; what a gradient needs beside them is computed again.
    """
    import torch

    place, (states, arguments) = device or model.device, first_inputs(model, batches)
    inputs = []
    model.requires_grad_(False)
    for layer in model.model.layers:
        inputs.append([state.cpu() for state in states])
        with on_device(layer, place), torch.no_grad():
            states = [layer(state.to(place), **moved(kept, place)).cpu() for state, kept in zip(states, arguments, strict=True)]
    with on_device(model.model.norm, place), on_device(model.lm_head, place):
        gradients = [_loss_gradient(model, state.to(place), ids.to(place)).cpu() for state, ids in zip(states, batches, strict=True)]
    for layer in reversed(model.model.layers):
        layer.requires_grad_(True)
        with on_device(layer, place):
            pairs = zip(inputs.pop(), gradients, strict=True)
            gradients = [
                _input_gradient(layer, state.to(place), moved(kept, place), gradient.to(place)).cpu()
                for (state, gradient), kept in zip(pairs, arguments, strict=True)
            ]
            yield layer
        layer.zero_grad()
        layer.requires_grad_(False)


def first_inputs(model: Any, batches: Iterable[Any]) -> tuple[list[Any], list[dict[str, Any]]]:
    """Return what the model hands its first decoder layer for every batch: hidden states and keyword arguments (mask, positions)."""
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
    """Return a layer's keyword arguments with every tensor on a device, floating-point ones in a dtype if one is given."""
    import torch

    if isinstance(value, dict):
        return {name: moved(part, device, dtype) for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(moved(part, device, dtype) for part in value)
    return value.to(device=device, dtype=dtype if value.is_floating_point() else None) if torch.is_tensor(value) else value


class _CaughtError(Exception):
    """Ends a forward pass behind the embedding."""


def _loss_gradient(model: Any, states: Any, ids: Any) -> Any:
    """Return the gradient of the next token's loss with respect to the last states; one sequence at a time, since logits are large."""
    import torch

    gradients = []
    for own, sequence in zip(states.detach(), ids, strict=True):
        variable = own.requires_grad_()
        logits = model.lm_head(model.model.norm(variable))[:-1].float()
        loss = torch.nn.functional.cross_entropy(logits, sequence[1:], reduction="sum") / ids.numel()
        gradients += torch.autograd.grad(loss, variable)
    return torch.stack(gradients)


def _input_gradient(layer: Any, states: Any, keywords: dict[str, Any], gradient: Any) -> Any:
    """Return the gradient with respect to a layer's inputs; that of its weights is added to theirs."""
    states = states.detach().requires_grad_()
    layer(states, **keywords).backward(gradient)
    return states.grad
