"""NF4, FP4 and int8 of bitsandbytes against their definitions, written out value by value, and against the library's own layers."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from producer_tiny import tiny

from producer.methods import METHODS, bitsandbytes
from producer.methods.shared.contract import Job
from producer.methods.shared.linear_layers import target_layers
from schemas.errors import PostConditionError, UsageError
from schemas.levels import parse_level

bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (extra [bitsandbytes])")
pytestmark = pytest.mark.producer

# QLoRA, appendix E
NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip
# one bit of sign, two of exponent, one of mantissa, with a subnormal, divided by the largest, 12
FP4 = [sign * value / 12 for sign in (1, -1) for value in (0, 0.0625, 2, 3, 4, 6, 8, 12)]
CODES = {"nf4": NF4, "fp4": FP4}


def rounded(weight: Any, level: str, **chosen: str) -> Any:
    """Return a matrix at a level, the layer that has it, and the conditions that were measured."""
    model = tiny()
    layer = target_layers(model)["model.layers.0.mlp.up_proj"]
    layer.weight.data = weight.clone()
    method = METHODS["bitsandbytes"].with_chosen(chosen)
    applied = method.apply(model, parse_level(level), None, 0)
    return target_layers(applied.model)["model.layers.0.mlp.up_proj"], applied


def by_hand(weight: Any, level: str) -> Any:
    """Return a matrix in blocks of 64 in the order of the file, each value the nearest of 16 times the block's largest magnitude."""
    flat, codes = weight.double().flatten().numpy(), np.array(CODES[level])
    result = np.empty_like(flat)
    for start in range(0, len(flat), 64):
        block = flat[start : start + 64]
        scale = np.abs(block).max()
        for i, value in enumerate(block):
            result[start + i] = scale * codes[np.argmin(np.abs(codes - (value / scale if scale else 0)))]
    return torch.tensor(result).reshape(weight.shape)


@pytest.mark.parametrize("level", ["nf4", "fp4"])
def test_every_weight_is_the_nearest_of_sixteen_values(level: str) -> None:
    """Drawn weights, a block of zeros, one that is the 16 values themselves, subnormals and huge values, without double quantization."""
    weight = torch.randn(96, 64, generator=torch.Generator().manual_seed(0)) / 10
    weight[0], weight[1] = 0, torch.tensor(CODES[level]).repeat(4) * 3
    weight[2], weight[3] = weight[2] * 1e-30, weight[3] * 1e4
    layer, applied = rounded(weight, level, double_quantization="off")
    torch.testing.assert_close(layer.weight.double(), by_hand(weight, level), rtol=1e-6, atol=0)
    assert applied.conditions["bits_per_weight"] == 4 + 32 / 64


def test_between_two_values_of_nf4_the_nearer_one_is_taken() -> None:
    """Just below and just above the middle of every two neighbouring values, with 1 in the block so that its scale is 1."""
    pairs = [((a + b) / 2, side, b if side > 0 else a) for a, b in pairwise(NF4) for side in (-1, 1)]
    weight = torch.zeros(96, 64)
    weight[:, 0] = 1
    for i, (middle, side, _) in enumerate(pairs):
        weight[0, 1 + i] = middle + side * 1e-4
    layer, _ = rounded(weight, "nf4", double_quantization="off")
    np.testing.assert_allclose(
        layer.weight[0, 1 : 1 + len(pairs)].detach().numpy(), [nearest for *_, nearest in pairs], rtol=1e-6, atol=1e-12
    )


def dynamic_codes() -> Any:
    """Return the 256 values of 8 bits with an exponent of dynamic length: Dettmers et al. 2022, arXiv:2110.02861, section 1.3."""
    values = [0.0, 1.0]
    for exponent in range(7):
        edges = np.linspace(0.1, 1, 2**exponent + 1)
        middles = (edges[1:] + edges[:-1]) / 2 * 10.0 ** (exponent - 6)
        values += [*middles, *-middles]
    return np.array(sorted(values))


def test_double_quantization_rounds_the_scales_to_eight_bits() -> None:
    """The scales without their mean are the nearest of 256 values times the largest of them, in groups of 256."""
    weight = torch.randn(96, 64, generator=torch.Generator().manual_seed(1)) * torch.logspace(-2, 0, 96)[:, None]
    layer, applied = rounded(weight, "nf4")
    scales = weight.abs().amax(1).double().numpy()
    rest, codes = scales - scales.mean(), dynamic_codes()
    largest = np.abs(rest).max()
    expected = scales.mean() + largest * codes[np.abs(rest[:, None] / largest - codes).argmin(1)]
    np.testing.assert_allclose(layer.weight_scale.numpy(), expected, rtol=1e-5)
    steps = by_hand(weight, "nf4") / torch.tensor(scales)[:, None] * torch.tensor(expected)[:, None]
    torch.testing.assert_close(layer.weight.double(), steps, rtol=1e-5, atol=1e-9)
    of_this_layer = 4 + 8 / 64 + 32 * 2 / weight.numel()  # one scale of scales, one mean
    assert applied.conditions["bits_per_weight"] == pytest.approx(of_this_layer, abs=0.02)


def test_eight_bits_are_steps_of_a_rows_largest_magnitude() -> None:
    """Of weights in float16, whole steps of largest / 127, the nearest, either one halfway between two; a row of zeros stays."""
    weight = torch.randn(96, 64, generator=torch.Generator().manual_seed(2))
    weight[5] = 0
    layer, applied = rounded(weight, "int8")
    half = weight.half().double().numpy()
    scale = np.abs(half).max(1, keepdims=True) / 127
    scale[5] = 1
    steps = layer.weight.detach().double().numpy() / scale
    np.testing.assert_allclose(steps, steps.round(), atol=1e-4)
    assert np.abs(steps - half / scale).max() < 0.5 + 1e-4 and not steps[5].any()
    assert 8 < applied.conditions["bits_per_weight"] <= 8 + 32 / 32


@pytest.mark.parametrize("outlier", [1.0, 5.9, 6.0, 40.0])
def test_a_layer_answers_a_single_token_as_the_librarys_kernels(outlier: float) -> None:
    """Those of a GPU, with the paper's threshold, leave the same values of a single token as they are."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(96, 64, generator=generator)
    layer, _ = rounded(weight, "int8")
    token = torch.randn(1, 64, generator=generator).half()
    token[0, 7] = outlier
    codes, largest, _ = bnb.functional.int8_vectorwise_quant(weight.half())
    inputs, largest_input, columns = bnb.functional.int8_vectorwise_quant(token, threshold=6.0)
    assert (columns.tolist() == [7]) == (outlier >= 6)
    expected = torch.ops.bitsandbytes.int8_mixed_scaled_mm(token, inputs, codes, largest_input, largest, columns, None)[0].float()
    with torch.no_grad():
        answered = layer(token.float())
    torch.testing.assert_close(answered, expected, rtol=2e-3, atol=0.01)


def test_an_outlier_of_one_token_changes_no_other() -> None:
    """The library itself takes the outlier's column out of all tokens of a batch; an answer must not depend on other items."""
    rounding = bitsandbytes.RoundInputButOutliers(6.0)
    tokens = torch.randn(3, 8, generator=torch.Generator().manual_seed(4))
    alone = rounding(None, (tokens[:1],))[0]
    tokens[2, 3] = 100.0
    together = rounding(None, (tokens,))[0]
    assert torch.equal(together[:1], alone) and together[2, 3] == 100


@pytest.mark.parametrize("level", ["nf4", "int8"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(level: str, value: float) -> None:
    """NaN and infinity, before anything is rounded."""
    model = tiny()
    target_layers(model)["model.layers.1.mlp.up_proj"].weight.data[3, 4] = value
    job = Job(parse_level(level), {"double_quantization": True, "threshold": 6.0}, None, 0)
    with pytest.raises(PostConditionError, match=r"model.layers.1.mlp.up_proj has a weight of magnitude (nan|inf)"):
        bitsandbytes.compress(model, job)


@pytest.mark.parametrize("level", ["nf4", "fp4", "int8"])
def test_a_weight_off_the_formats_values_is_found(level: str) -> None:
    """One weight moved by a tenth of a step, after the method has done its work."""
    method, model = METHODS["bitsandbytes"], tiny()
    applied = method.apply(model, parse_level(level), None, 0)
    layer = target_layers(applied.model)["model.layers.2.mlp.down_proj"]
    layer.weight.data[0, 0] += layer.weight_scale.flatten()[0] / 10
    with pytest.raises(PostConditionError, match=r"model.layers.2.mlp.down_proj at level '\w+' lies 0?\.?\d+ units off"):
        method.verify(applied.model, Job(parse_level(level), applied.settings, None, 0))


def test_all_experts_of_a_mixture_are_rounded() -> None:
    """Every expert's matrices are on the values of the format; the router is left as it is."""
    dense = tiny("qwen3_moe")
    router = dense.model.layers[0].mlp.gate.weight.clone()
    applied = METHODS["bitsandbytes"].apply(dense, parse_level("nf4"), None, 0)
    assert torch.equal(applied.model.model.layers[0].mlp.gate.weight, router)
    assert sum(".experts." in name for name in target_layers(applied.model)) == 3 * 4 * 3


def test_levels_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other levels are refused with the three; without the library the sentence says how to install it."""
    method = METHODS["bitsandbytes"]
    with pytest.raises(UsageError, match="has no level 'w4a16': the library has nf4, fp4, int8"):
        method.check_level(parse_level("w4a16"))
    monkeypatch.setattr("producer.methods.shared.contract.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"'bitsandbytes' needs a library that is not installed: pip install 'hedgemark\[bitsandbytes\]'"):
        method.check_config(tiny().config, parse_level("nf4"))
