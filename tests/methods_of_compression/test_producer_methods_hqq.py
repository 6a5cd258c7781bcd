"""HQQ by its own library: on its grid, closer than round-to-nearest where the paper says so, and as the published steps written out."""

from typing import Any

import numpy as np
import pytest
import torch
from producer_tiny import tiny

from producer.methods import METHODS
from producer.methods.shared.contract import Job
from producer.methods.shared.linear_layers import target_layers
from schemas.errors import PostConditionError, UsageError
from schemas.levels import parse_level

pytestmark = pytest.mark.producer
LAYER = "model.layers.1.mlp.down_proj"


@pytest.fixture(autouse=True)
def _library(request: pytest.FixtureRequest) -> None:
    if "without" not in request.node.name:
        pytest.importorskip("hqq", reason="hqq is not installed (extra [hqq])")


def by_hand(weight: Any, bits: int, group: int) -> Any:
    """Return a matrix after the published steps: scale from the range, then zero points by half-quadratic splitting with p = 0.7."""
    w, most = weight.double().numpy().reshape(-1, group), 2**bits - 1
    low, high = w.min(1, keepdims=True), w.max(1, keepdims=True)
    scale = most / (high - low)
    zero, beta, best = -low * scale, 10.0, np.inf
    for _ in range(20):
        codes = np.clip(np.round(w * scale + zero), 0, most)
        rest = w - (codes - zero) / scale
        error = np.abs(rest).mean()
        with np.errstate(divide="ignore"):
            shrunk = np.sign(rest) * np.maximum(np.abs(rest) - np.abs(rest) ** (0.7 - 1) / beta, 0)
        zero = (codes - (w - shrunk) * scale).mean(1, keepdims=True)
        if error >= best:
            break
        best = error
    codes = np.clip(np.round(w * scale + zero), 0, most)
    return torch.tensor((codes - zero) / scale).reshape(weight.shape)


@pytest.mark.parametrize("text", ["w4a16-g32", "w3a16-g16", "w2a16-g16", "w8a16"])
def test_weights_are_those_of_the_published_steps(text: str) -> None:
    """Written out in float64; scales and zero points have 16 bits, so that a weight is off by a small part of a step."""
    level, dense = parse_level(text), target_layers(tiny())[LAYER].weight.detach()
    applied = METHODS["hqq"].apply(tiny(), level, None, 0)
    layer = target_layers(applied.model)[LAYER]
    expected = by_hand(dense, level.weight_bits, level.group_size or dense.shape[1])
    step = layer.weight_scale.double().repeat_interleave(dense.shape[1] // layer.weight_scale.shape[1], 1)
    off = ((layer.weight.detach().double() - expected) / step).abs()
    assert float(off.quantile(0.99)) < 0.1  # the library computes in float32: a few weights halfway between two steps fall to the other
    assert applied.conditions["bits_per_weight"] == pytest.approx(level.weight_bits + 32 / (level.group_size or 73), rel=0.02)


def test_it_is_closer_than_rounding_in_the_sense_that_it_minimizes() -> None:
    """At three bits the mean of |w - rounded|^0.7 is smaller than that of round-to-nearest, which is what the method asks for."""
    level, dense = parse_level("w3a16-g32"), target_layers(tiny())
    distances = {}
    for name in ("hqq", "rtn"):
        rounded = target_layers(METHODS[name].apply(tiny(), level, None, 0).model)
        distances[name] = sum(float((layer.weight - rounded[at].weight).detach().abs().pow(0.7).sum()) for at, layer in dense.items())
    assert distances["hqq"] < distances["rtn"]


def test_a_group_of_equal_weights_stays() -> None:
    """Zeros, and a constant, have no range; they come out as they are to the precision of 16 bits."""
    model = tiny()
    target_layers(model)[LAYER].weight.data[0], target_layers(model)[LAYER].weight.data[1] = 0, 0.25
    layer = target_layers(METHODS["hqq"].apply(model, parse_level("w4a16-g32"), None, 0).model)[LAYER]
    torch.testing.assert_close(layer.weight[:2].detach(), torch.tensor([[0.0], [0.25]]).expand(2, 96), rtol=0, atol=1e-3)


def test_a_weight_off_its_grid_is_found() -> None:
    """One weight moved by a third of a step."""
    applied = METHODS["hqq"].apply(tiny(), parse_level("w4a16-g32"), None, 0)
    layer = target_layers(applied.model)[LAYER]
    layer.weight.data[0, 0] += layer.weight_scale[0, 0] / 3
    with pytest.raises(PostConditionError, match=rf"layer {LAYER} at level 'w4a16-g32' is 0.33\d? steps off its 4-bit grid"):
        METHODS["hqq"].verify(applied.model, Job(parse_level("w4a16-g32"), applied.settings, None, 0))


def test_levels_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven bits are refused; without the library the sentence says how to install it."""
    with pytest.raises(UsageError, match="has no level 'w7a16': the library has 2, 3, 4, 5, 6, 8 bits"):
        METHODS["hqq"].check_level(parse_level("w7a16"))
    monkeypatch.setattr("producer.methods.shared.contract.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"'hqq' needs a library that is not installed: pip install 'hedgemark\[hqq\]'"):
        METHODS["hqq"].check_config(tiny().config, parse_level("w4a16-g32"))
