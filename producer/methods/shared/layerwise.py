"""Work on a model layer by layer: one layer at a time on a device, while a model too large for the device stays on the host.

In: a model, token ids.  Out: each decoder layer on the device, with its inputs or its gradients.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from unittest.mock import patch

from producer.methods.shared.finished_layers import FinishedLayers
from producer.methods.shared.linear_layers import decoder_layers
from schemas.errors import UsageError

CHAIN_TOKENS = 16  # of the first sequence, on which layers one by one are compared with the whole forward pass
ROUNDINGS = 64  # units of precision of the largest hidden state that the two may differ by


@contextlib.contextmanager
def on_device(module: Any, device: Any) -> Iterator[None]:
    """Move a module to a device for the `with` block and back afterwards; None leaves it where it is."""
    home = next(module.parameters()).device
    module.to(device or home)
    yield
    module.to(home)


def layer_inputs(
    model: Any, batches: Iterable[Any], device: Any = None, finished: FinishedLayers | None = None
) -> Iterator[tuple[Any, Callable[..., None]]]:
    """Yield each decoder layer with a function that runs it on all batches.

    batches  : token ids, (sequence, token) each.
    finished : layers that need not be compressed: they are put into the model and not yielded; the others are added.
    The function discards the layer's outputs, except with `advance=True`: then they become the inputs of the next layer. Make the
    `advance=True` call last.
    """
    home, working = model.device, device or model.device
    finished = finished or FinishedLayers()
    states, arguments = first_inputs(model, batches)
    layers = list(decoder_layers(model).values())
    states = finished.restore(layers, home) or states
    for number, layer in list(enumerate(layers))[finished.n :]:

        def run(advance: bool = False, layer: Any = layer, number: int = number) -> None:
            for batch, (state, of_layers) in enumerate(zip(states, arguments, strict=True)):
                output = of_layers[number].run(layer, state, working)
                if advance:
                    states[batch] = output.to(home)

        with on_device(layer, working):
            yield layer, run
        finished.add(layer, states)
    finished.end()


def layer_gradients(model: Any, batches: Sequence[Any], device: Any = None) -> Iterator[Any]:
    """Yield each decoder layer, last first, with the gradients of the next token's loss in its weights, summed over batches.

    batches : token ids, (sequence, token) each; a batch's loss is the mean over its tokens, in nats.
    Only the inputs of every layer are kept, in RAM; other intermediate results are recomputed.
    """
    import torch

    working, (states, arguments) = device or model.device, first_inputs(model, batches)
    inputs = []
    model.requires_grad_(False)
    layers = list(decoder_layers(model).values())
    for number, layer in enumerate(layers):
        inputs.append([state.cpu() for state in states])
        with on_device(layer, working), torch.no_grad():
            states = [of_layers[number].run(layer, state, working).cpu() for state, of_layers in zip(states, arguments, strict=True)]
    with on_device(model.model.norm, working), on_device(model.lm_head, working):
        gradients = [_loss_gradient(model, state.to(working), ids.to(working)).cpu() for state, ids in zip(states, batches, strict=True)]
    for number, layer in reversed(list(enumerate(layers))):
        layer.requires_grad_(True)
        with on_device(layer, working):
            pairs = zip(inputs.pop(), gradients, strict=True)
            gradients = [
                _input_gradient(layer, of_layers[number], state.to(working), gradient.to(working)).cpu()
                for (state, gradient), of_layers in zip(pairs, arguments, strict=True)
            ]
            yield layer
        layer.zero_grad()
        layer.requires_grad_(False)


class Arguments(NamedTuple):
    """What a decoder layer is called with beside the hidden states: mask, positions; they may differ from layer to layer."""

    positional: tuple[Any, ...]
    keywords: dict[str, Any]

    def run(self, layer: Any, states: Any, device: Any) -> Any:
        """Return the layer's hidden states, (sequence, token, width), computed on a device."""
        return hidden_states(layer(states.to(device), *moved(self.positional, device), **moved(self.keywords, device)))


def hidden_states(output: Any) -> Any:
    """Return the hidden states in what a decoder layer returned: some return attention weights or a cache beside them."""
    return output[0] if isinstance(output, tuple) else output


def first_inputs(model: Any, batches: Iterable[Any]) -> tuple[list[Any], list[list[Arguments]]]:
    """Return for every batch the hidden states that enter the first decoder layer, and the other arguments of every layer.

    Raises UsageError for a model that does more between its layers than pass on hidden states; the first batch shows it.
    """
    import torch

    layers = list(decoder_layers(model).values())
    states: list[Any] = []
    arguments: list[list[Arguments]] = []
    with torch.no_grad():
        for ids in batches:
            if not arguments:
                as_tuple = _require_chain(model, layers, ids[:1, :CHAIN_TOKENS].to(model.device))
            state, of_layers = _calls(model, layers, ids.to(model.device), as_tuple)
            states.append(state)
            arguments.append(of_layers)
    return states, arguments


def _calls(model: Any, layers: list[Any], ids: Any, as_tuple: bool) -> tuple[Any, list[Arguments]]:
    """Return the first layer's hidden states and the other arguments of all layers; the layers themselves are skipped.

    as_tuple : whether the layers return their hidden states in a tuple.
    """
    calls: list[Arguments] = []
    entered: list[Any] = []

    def skip(*positional: Any, **keywords: Any) -> Any:
        state, *rest = positional or (keywords.pop("hidden_states"),)
        entered.append(state)
        calls.append(Arguments(tuple(rest), keywords))
        if len(calls) == len(layers):
            raise _CaughtError
        return (state, None, None) if as_tuple else state

    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(patch.object(layer, "forward", skip))
        stack.enter_context(contextlib.suppress(_CaughtError))
        model(input_ids=ids, use_cache=False)
    return entered[0], calls


def _require_chain(model: Any, layers: list[Any], ids: Any) -> bool:
    """Return whether layers return their hidden states in a tuple.

    Raises UsageError where running the layers one by one does not give what the model's own forward pass gives.
    """
    import torch

    outputs: list[Any] = []
    same, as_tuple = False, False
    with _without_hooks(model), contextlib.suppress(TypeError, ValueError, IndexError, AttributeError):  # a skipped layer returns less
        hooks = [layer.register_forward_hook(lambda _, __, output: outputs.append(output)) for layer in layers]
        hooks.append(layers[-1].register_forward_hook(_catch))
        with contextlib.suppress(_CaughtError):
            model(input_ids=ids, use_cache=False)
        for hook in hooks:
            hook.remove()
        as_tuple, expected = isinstance(outputs[0], tuple), hidden_states(outputs[-1])
        state, calls = _calls(model, layers, ids, as_tuple)
        same = len(calls) == len(outputs) == len(layers)
        if same:
            for layer, arguments in zip(layers, calls, strict=True):
                state = arguments.run(layer, state, model.device)
            tolerance = torch.finfo(state.dtype).eps * ROUNDINGS * float(expected.nan_to_num().abs().max())
            same = torch.allclose(state, expected, rtol=0, atol=tolerance, equal_nan=True)  # a model that overflows is refused later
    if not same:
        kind = model.config.model_type
        rest = "methods that need compression data cannot do them (magnitude and rtn need none)"
        raise UsageError(f"models of type {kind!r} do more between their layers than pass on hidden states; {rest}")
    return as_tuple


def _catch(*_: Any) -> None:
    raise _CaughtError


@contextlib.contextmanager
def _without_hooks(model: Any) -> Iterator[None]:
    """Take away inside the `with` block the hooks by which callers observe layers."""
    modules = list(model.modules())
    hooks = [(module._forward_hooks, module._forward_pre_hooks) for module in modules]
    for module in modules:
        module._forward_hooks, module._forward_pre_hooks = OrderedDict(), OrderedDict()
    try:
        yield
    finally:
        for module, (after, before) in zip(modules, hooks, strict=True):
            module._forward_hooks, module._forward_pre_hooks = after, before


def moved(value: Any, device: Any, dtype: Any = None) -> Any:
    """Return a layer's keyword arguments with every tensor on a device, and floating-point tensors in `dtype` unless that is None."""
    import torch

    if isinstance(value, dict):
        return {name: moved(part, device, dtype) for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(moved(part, device, dtype) for part in value)
    return value.to(device=device, dtype=dtype if value.is_floating_point() else None) if torch.is_tensor(value) else value


class _CaughtError(Exception):
    """Ends a forward pass at the last decoder layer."""


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


def _input_gradient(layer: Any, arguments: Arguments, states: Any, gradient: Any) -> Any:
    """Return the gradient with respect to a layer's inputs; gradients of its weights are added to `.grad`."""
    states = states.detach().requires_grad_()
    arguments.run(layer, states, states.device).backward(gradient)
    return states.grad
