"""The linear layers of a loaded model that methods compress: all inside the decoder layers, no embedding, head or router.

In: a model.  Out: its layers by name; fused experts are split into linear layers first, so that every expert is one of them.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from producer.methods.layout import is_moe

PROBE_TOKENS = 48
BATCH = 8  # sequences per forward pass over compression data


def split_experts(model: Any) -> Any:
    """Replace fused expert weights by one gated MLP of linear layers per expert, in place; the function is unchanged."""
    if not is_moe(model.config):
        return model
    from compressed_tensors.offload.module import remove_module_offload  # type: ignore[import-untyped]
    from llmcompressor.modeling.moe.linearize import linearize_moe

    from producer.methods.upstream import quiet

    with quiet():
        linearize_moe(model)
    for module in model.modules():
        if hasattr(module, "_original_forward_func"):  # a cache whose weights are overwritten in place, which no gradient survives
            remove_module_offload(module)
            del module.forward
    return model


def target_layers(model: Any) -> dict[str, Any]:
    """Return every linear layer to compress, by its name in the model, in the model's order."""
    import torch

    return {f"model.layers.{name}": m for name, m in model.model.layers.named_modules() if isinstance(m, torch.nn.Linear)}


def layer_inputs(model: Any, batches: Iterable[Any]) -> Iterator[tuple[Any, Callable[..., None]]]:
    """Yield each decoder layer with a function that runs it on all batches.

    batches : token ids, (sequence, token) each.
    The function drops the outputs; with `advance=True` they become the inputs of the next layer, so call it so last.
    A layer runs on the accelerator if there is one, and goes back to where it was.
    """
    import torch

    states, arguments = first_inputs(model, batches)
    home = model.device
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else home
    for layer in model.model.layers:
        layer.to(device)

        def run(advance: bool = False, layer: Any = layer) -> None:
            for number, (state, keywords) in enumerate(zip(states, arguments, strict=True)):
                output = layer(state.to(device), **_moved(keywords, device))
                if advance:
                    states[number] = output.to(home)

        yield layer, run
        layer.to(home)


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


class _CaughtError(Exception):
    """Ends a forward pass behind the embedding."""


def _moved(value: Any, device: Any) -> Any:
    if isinstance(value, dict):
        return {name: _moved(part, device) for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(_moved(part, device) for part in value)
    return value.to(device) if hasattr(value, "to") else value


def token_batches(data: Any) -> Iterator[Any]:
    """Yield compression data as token ids, (sequence, token) each."""
    import torch

    for start in range(0, len(data.input_ids), BATCH):
        yield torch.tensor(data.input_ids[start : start + BATCH])


def probe_tokens(model: Any, data: Any) -> Any:
    """Return a few tokens to compare two models on: (sequence, token); the start of the data, else evenly spaced token ids."""
    import torch

    if data is not None:
        return torch.tensor([row[:PROBE_TOKENS] for row in data.input_ids[:2]], device=model.device)
    ids = torch.arange(2 * PROBE_TOKENS, device=model.device) * 7919 % model.config.vocab_size
    return ids.reshape(2, PROBE_TOKENS)
