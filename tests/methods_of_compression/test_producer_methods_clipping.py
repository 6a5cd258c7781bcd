"""AWQ's clipping of weights against a loop over rows, groups, shares and tokens."""

from typing import Any

import numpy as np
import pytest
from producer_tiny import logits, tiny, tiny_data

from producer.methods import METHODS, awq
from producer.methods.shared.linear_layers import target_layers
from schemas.levels import parse_level

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.producer
BITS, GROUP = 3, 16


def on_grid(group: Any) -> Any:
    """A group of numbers rounded between its smallest and largest value, zero included."""
    low, high = min(group.min(), 0.0), max(group.max(), 0.0)
    step = (high - low) / (2**BITS - 1)
    zero = np.round(-low / step)
    return (np.clip(np.round(group / step) + zero, 0, 2**BITS - 1) - zero) * step


def naive_limits(weight: Any, inputs: Any) -> Any:
    """The paper's search, number by number: weight (row, column), inputs (token, column), result (row, group)."""
    rows, groups = len(weight), weight.shape[1] // GROUP
    limits = np.zeros((rows, groups))
    for row in range(rows):
        for number in range(groups):
            columns = slice(number * GROUP, (number + 1) * GROUP)
            group, x = weight[row, columns], inputs[:, columns]
            errors = []
            shares = [1 - step / 20 for step in range(10)]
            for share in shares:
                limit = share * np.abs(group).max()
                rounded = on_grid(np.clip(group, -limit, limit))
                errors.append(np.mean([(token @ rounded - token @ group) ** 2 for token in x]))
            limits[row, number] = shares[int(np.argmin(errors))] * np.abs(group).max()
    return limits


def searches(monkeypatch: pytest.MonkeyPatch, model: Any, data: Any) -> list[tuple[Any, Any, Any]]:
    """Weight, moments and found limits of every clipped layer of a model."""
    seen, search = [], awq.best_limit

    def watched(weight: Any, moments: Any, *others: Any) -> Any:
        limit = search(weight, moments, *others)
        seen.append((weight.clone(), moments, limit))
        return limit

    monkeypatch.setattr(awq, "best_limit", watched)
    METHODS["awq"].apply(model, parse_level(f"w{BITS}a16-g{GROUP}"), data, 0)
    return seen


@pytest.mark.parametrize("layout", ["llama", "qwen3_moe"])
def test_the_share_found_is_that_of_a_loop_over_tokens(monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    """The inputs of the first layer's values are the dense ones over the scales, one token in 3; its groups have the loop's limits."""
    model, data = tiny(layout), tiny_data(64)  # 1,536 tokens, three times the sample
    before = model.model.layers[0].input_layernorm.weight.detach().clone()
    inputs: list[Any] = []
    value = model.model.layers[0].self_attn.v_proj
    dense = value.weight.detach().double().numpy().copy()
    hook = value.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0].flatten(0, -2)))
    logits(model, data.input_ids)
    hook.remove()
    weight, moments, limits = searches(monkeypatch, model, data)[0]
    scales = (weight.double().numpy() / dense)[0]
    assert np.allclose(scales, (before / model.model.layers[0].input_layernorm.weight.detach()).numpy(), rtol=1e-4)
    assert scales.std() > 0.01
    sample = torch.cat(inputs).double().numpy()[::3] / scales
    by_group = sample.reshape(len(sample), -1, GROUP)
    assert np.allclose(moments.numpy(), np.einsum("tgi,tgj->gij", by_group, by_group), rtol=1e-3, atol=1e-3)
    expected = naive_limits(weight.double().numpy(), sample)
    assert np.mean(np.abs(limits.squeeze(-1).numpy() / expected - 1) < 1e-5) > 0.95  # float32 decides otherwise where two are nearly equal
    assert np.mean(expected < np.abs(weight.numpy()).reshape(len(weight), -1, GROUP).max(-1) * 0.99) > 0.05


def test_queries_and_keys_are_not_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five of the seven matrices of every layer are searched, in the layers' order."""
    model, data = tiny(), tiny_data()
    searched = len(searches(monkeypatch, model, data))
    assert searched == 5 * len(model.model.layers)


def test_weights_are_clipped_before_the_grid_is_laid() -> None:
    """With clipping the steps of a group are at most those without, and where they are smaller the largest weight has moved."""
    level, data = parse_level(f"w{BITS}a16-g{GROUP}"), tiny_data()
    clipped = METHODS["awq"].apply(tiny(), level, data, 0)
    plain = METHODS["awq"].with_chosen({"clip": "none"}).apply(tiny(), level, data, 0)
    assert clipped.settings["clip"] == {"grid": 20, "max_shrink": 0.5, "tokens": 512}
    assert plain.settings["clip"] == {}
    others = target_layers(plain.model)
    smaller = []
    for name, layer in target_layers(clipped.model).items():
        if "layers.0" in name:  # later layers see other inputs
            ratio = layer.weight_scale / others[name].weight_scale
            assert ratio.max() < 1 + 1e-5
            assert (ratio.min() > 1 - 1e-5) == name.endswith(("q_proj", "k_proj"))
            smaller.append(float((ratio < 0.99).float().mean()))
    assert max(smaller) > 0.1
