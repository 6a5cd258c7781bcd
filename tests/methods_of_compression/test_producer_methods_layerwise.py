"""Methods work layer by layer on the device asked for, wherever the model lies, and a sweep keeps no model longer than it is used."""

import gc
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from producer_prefill import OPTIONS, plain, run, some_prompts
from producer_tiny import CONFIGS, tiny, tiny_data

from producer.methods import METHODS, spinquant
from producer.methods.shared.layerwise import layer_gradients
from producer.methods.shared.linear_layers import target_layers, token_batches
from producer.methods.shared.make_linear import make_linear
from schemas.levels import FULL_BITS, parse_level

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.producer
COMPRESSING = [name for name in METHODS if name not in {"dense", "checkpoint"} and not METHODS[name].library]
LEVELS = {"sparsity": ["0.1", "0.15", "0.2"], "w4a16": ["w8a16-g8", "w6a16-g8", "w4a16-g8"], "w4a4": ["w8a8", "w6a6", "w4a4"]}


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let SpinQuant learn until it first computes the loss over all batches."""
    monkeypatch.setattr(spinquant, "STEPS", spinquant.CHECK_EVERY)


def levels_of(name: str) -> list[Any]:
    if name == "kv":
        return [parse_level(text) for text in ("fp8", "int8", "int4")]
    default = parse_level(METHODS[name].default_level)
    if default.kind == "name":  # a recipe has one level, its name
        return [default]
    kind = "sparsity" if default.kind == "sparsity" else "w4a16" if default.activation_bits == 16 else "w4a4"
    return [parse_level(text) for text in LEVELS[kind]]


@pytest.mark.parametrize("layout", CONFIGS)
def test_gradients_layer_by_layer_are_those_of_the_whole_model(layout: str) -> None:
    """The gradient of every target weight equals that of one backward pass through the model, summed over batches."""
    model, batches = make_linear(tiny(layout)), list(token_batches(tiny_data(12)))
    weights = {name: target.weight for name, target in target_layers(model).items()}
    names = {weight: name for name, weight in weights.items()}
    cross_entropy = torch.nn.functional.cross_entropy
    loss = sum(cross_entropy(model(input_ids=ids).logits[:, :-1].mT, ids[:, 1:], reduction="sum") / ids.numel() for ids in batches)
    expected = dict(zip(weights, torch.autograd.grad(loss, list(weights.values()), allow_unused=True), strict=True))
    found = {}
    for layer in layer_gradients(model, batches):
        found |= {names[w]: w.grad.clone() if w.grad is not None else None for w in layer.parameters() if w in names}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-7)
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", [name for name in COMPRESSING if METHODS[name].needs_data(parse_level(METHODS[name].default_level))])
def test_a_model_on_the_host_goes_to_the_device_layer_by_layer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every decoder layer is moved to the device, and nothing that is larger than one with its scales."""
    model, real, seen = tiny(), torch.nn.Module.to, []
    largest = max(sum(p.numel() for p in layer.parameters()) for layer in model.model.layers)

    def to(module: Any, *where: Any) -> Any:
        if where and str(where[0]) == "cpu:0":
            seen.append(type(module).__name__)
            assert sum(p.numel() for p in module.parameters()) < 1.5 * largest
        return real(module, *where)

    monkeypatch.setattr(torch.nn.Module, "to", to)
    next(METHODS[name].sweep(model, levels_of(name)[-1:], tiny_data(), 0, torch.device("cpu:0")))
    assert seen.count("LlamaDecoderLayer") >= len(model.model.layers)


@pytest.mark.parametrize("name", COMPRESSING)
def test_the_engine_runs_what_a_method_made(name: str) -> None:
    """A model compressed in memory answers prompt by prompt as it does with a shared prefix, batch by batch."""
    level, prompts = levels_of(name)[0], some_prompts()
    model = METHODS[name].apply(tiny(), level, tiny_data(), 0).model
    rounding = 0.02 if level.activation_bits < FULL_BITS else 2e-5  # an input at the edge of two steps may go to either
    np.testing.assert_allclose(run(model, prompts).logits, plain(model, prompts)[:, OPTIONS], atol=rounding)


@pytest.mark.parametrize("name", COMPRESSING)
def test_a_sweep_keeps_no_model_but_the_dense_one_and_its_copy(name: str) -> None:
    """When a level is made, the model of the one before is gone: at once, not when cycles are next collected."""
    made: list[weakref.ref[Any]] = []
    still_there = []

    def compress(model: Any, job: Any) -> Any:
        still_there.append([each() for each in made])
        return METHODS[name].compress(model, job)

    # On a model this small it is a matter of the processor's rounding whether spinquant's steps gain anything, and it refuses where not.
    verify = METHODS["quarot" if name == "spinquant" else name].verify
    gc.collect()
    gc.disable()
    try:
        for applied in replace(METHODS[name], compress=compress, verify=verify).sweep(tiny(), levels_of(name), tiny_data(), 0):
            made.append(weakref.ref(applied.model))
            del applied
    finally:
        gc.enable()
    assert still_there == [[None] * number for number in range(len(levels_of(name)))]
