"""Number formats against references written out from their definitions: values, scales, activations, and what is refused."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from producer_tiny import SIZES, tiny, tiny_data
from transformers import LlamaConfig

from producer.methods import METHODS
from producer.methods.shared.grid import verify_grid
from producer.methods.shared.linear_layers import target_layers
from producer.methods.shared.number_formats import FORMATS, RoundInputTo, canonical_level, nearest, preset_scheme
from producer.request.request import Request
from producer.run.levels import choose_levels
from producer.run.plan import make_plan
from schemas.errors import PostConditionError, UsageError
from schemas.levels import parse_level

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.producer

WIDE = SIZES | {"hidden_size": 128, "intermediate_size": 256}
E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
# 8 bits: sign, four bits of exponent with bias 7, three of mantissa; the two codes 0x7f and 0xff are NaN, and there is no infinity
E4M3 = [
    (code & 7) / 8 * 2.0**-6 if code < 8 else (1 + (code & 7) / 8) * 2.0 ** ((code >> 3) - 7) for code in range(127)
]  # fmt: skip


def closest(value: float, magnitudes: Sequence[float]) -> float:
    """Return the nearest of a format's values; of two equally near ones that with the even last bit; beyond the largest the largest."""
    at = min(range(len(magnitudes)), key=lambda i: (abs(magnitudes[i] - abs(value)), i % 2))
    return math.copysign(magnitudes[at], value)


def wide_model() -> Any:
    return tiny_of(LlamaConfig(**WIDE))


def tiny_of(config: Any) -> Any:
    import producer_tiny

    producer_tiny.CONFIGS["wide"] = lambda: config
    try:
        return tiny("wide")
    finally:
        del producer_tiny.CONFIGS["wide"]


@pytest.mark.parametrize(("preset", "magnitudes"), [("w8a8-fp8", E4M3), ("nvfp4a16", E2M1)])
def test_a_format_rounds_to_its_nearest_value(preset: str, magnitudes: list[float]) -> None:
    """Every value is its own nearest, halfway goes to the even one, subnormals are kept, what is too large saturates."""
    args = preset_scheme(FORMATS[preset]).weights
    own = np.array([*magnitudes, *(-m for m in magnitudes)])
    between = np.array([(a + b) / 2 for a, b in pairwise(magnitudes)])
    drawn = np.random.default_rng(0).normal(size=300) * magnitudes[-1] / 3
    for values in (own, between, -between, between * 1.001, between * 0.999, drawn, np.array([1e9, -1e9])):
        expected = [closest(float(v), magnitudes) for v in values]
        np.testing.assert_allclose(nearest(torch.tensor(values), args).numpy(), expected, rtol=1e-12 if preset == "nvfp4a16" else 1e-6)


def power_of_two(largest: float, offset: int) -> float:
    """Return the scale of a group in an MX format, as compressed-tensors rounds it: up from a mantissa of 1.75 on, else down."""
    mantissa, exponent = math.frexp(largest)  # mantissa in [0.5, 1)
    return 2.0 ** (exponent - 1 + (1 if mantissa * 2 >= 1.75 else 0) - offset)


def expected_weights(weight: Any, name: str) -> Any:
    """Return a matrix in a format, written out value by value in float64."""
    rows, columns = weight.shape
    result, largest = np.empty((rows, columns)), np.abs(weight).max()
    magnitudes = E4M3 if "8" in name.removeprefix("w4afp8") else E2M1
    overall = 448 * 6 / largest
    for row in range(rows):
        for start in range(0, columns, size := FORMATS[name].group or columns):
            group = weight[row, start : start + size]
            most = np.abs(group).max()
            scale = {
                "w8a8-fp8": most / 448,
                "w8a8-fp8-static": largest / 448,
                "mxfp4": power_of_two(most, 2),
                "mxfp8": power_of_two(most, 8),
                "nvfp4a16": closest(overall * most / 6, E4M3) / overall,
            }[name]
            result[row, start : start + size] = [closest(v / scale, magnitudes) * scale for v in group]
    return result


@pytest.mark.parametrize("name", ["w8a8-fp8", "w8a8-fp8-static", "mxfp4", "mxfp8", "nvfp4a16"])
def test_weights_are_those_of_the_definition(name: str) -> None:
    """Rounded to nearest without data, every weight equals the reference, but where float32 puts it on the other side of a tie."""
    model = wide_model()
    layers = {name: layer.weight.detach().double().numpy().copy() for name, layer in target_layers(model).items()}
    applied = METHODS["rtn"].apply(model, parse_level(name), tiny_data(), 0)
    layer = next(layer for layer in layers if layer.endswith("down_proj"))  # q, k and v, gate and up share NVFP4's overall scale
    found, expected = target_layers(applied.model)[layer].weight.detach().double().numpy(), expected_weights(layers[layer], name)
    assert np.mean(np.abs(found - expected) > 1e-5 * np.abs(expected).max()) < 1e-3
    assert applied.conditions["bits_per_weight"] == pytest.approx({"mxfp4": 4.25, "mxfp8": 8.25, "nvfp4a16": 4.5}.get(name, 8), abs=0.15)


@pytest.mark.parametrize(("name", "group"), [("w8a8-fp8", 0), ("w8a8-fp8-block", 128), ("mxfp4", 32), ("mxfp8", 32)])
@pytest.mark.parametrize("shape", [(5, 128), (1, 5, 128), (2, 3, 128)])
def test_inputs_are_rounded_per_token_whatever_their_shape(name: str, group: int, shape: tuple[int, ...]) -> None:
    """A token has scales of its own, also where a batch is a matrix; a token of zeros stays zeros."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 3
    x.reshape(-1, 128)[1] = 0
    x.reshape(-1, 128)[2] *= 100
    (found,) = RoundInputTo(preset_scheme(FORMATS[name]).input_activations)(None, (x,))
    magnitudes, offset = (E2M1, 2) if name == "mxfp4" else (E4M3, 8)
    for token, rounded in zip(x.reshape(-1, 128).double().numpy(), found.reshape(-1, 128).double().numpy(), strict=True):
        for start in range(0, 128, size := group or 128):
            part = token[start : start + size]
            most = np.abs(part).max()
            scale = power_of_two(most, offset) if name.startswith("mx") and most else most / 448 or 1.0
            expected = np.array([closest(v / scale, magnitudes) * scale for v in part])
            assert np.mean(np.abs(rounded[start : start + size] - expected) > 1e-5 * max(most, 1e-9)) < 0.02


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_every_format_holds_its_post_conditions(name: str, method: str) -> None:
    """Both methods take every format, and the check sees a weight off the format, a scale that it cannot store, and NaN."""
    applied = METHODS[method].apply(wide_model(), parse_level(name), tiny_data(), 0)
    level = parse_level(name)
    job = type("Job", (), {"level": level})()
    verify_grid(applied.model, job)
    layer = next(iter(target_layers(applied.model).values()))
    before = layer.weight.detach().clone()
    layer.weight.data[0, 0] = before.abs().max() * 0.7131
    with pytest.raises(PostConditionError, match="off the values of its format"):
        verify_grid(applied.model, job)
    layer.weight.data[0, 0] = math.nan
    with pytest.raises(PostConditionError, match="off the values"):
        verify_grid(applied.model, job)
    layer.weight.data = before
    if name.startswith(("mx", "nv")):
        layer.weight_scale.data = layer.weight_scale.float() * 1.01
        with pytest.raises(PostConditionError, match="cannot store"):
            verify_grid(applied.model, job)


def test_a_group_of_zeros_stays_zero() -> None:
    """Neither a scale of zero nor NaN comes of weights that were pruned before."""
    for name in ("mxfp4", "nvfp4a16", "w8a8-fp8"):
        model = wide_model()
        layer = next(iter(target_layers(model).values()))
        layer.weight.data[3] = 0
        applied = METHODS["rtn"].apply(model, parse_level(name), None, 0)
        weight = next(iter(target_layers(applied.model).values())).weight
        assert torch.isfinite(weight).all() and (weight[3] == 0).all()


@pytest.mark.parametrize("text", ["FP8_DYNAMIC", "fp8_dynamic", "NVFP4", "MXFP4A16", "FP8", "FP8_BLOCK", "W4AFP8"])
def test_the_ecosystem_s_names_are_ours(text: str) -> None:
    """A preset's name in any case is the level that we write, so it makes one run; INT8 is w8a8, which other methods have."""
    assert FORMATS[canonical_level(parse_level(text)).text].preset == text.upper()
    assert canonical_level(parse_level("INT8")).text == "w8a8"
    with pytest.raises(UsageError, match="awq"):
        choose_levels(["awq"], [text])


def test_only_formats_with_fixed_activation_scales_need_data() -> None:
    """RTN draws compression data for nvfp4 and static fp8 alone, and refuses to do without."""
    rtn = METHODS["rtn"]
    assert {name for name in FORMATS if rtn.needs_data(parse_level(name))} == {"nvfp4", "w8a8-fp8-static"}
    with pytest.raises(UsageError, match="needs compression data for level 'nvfp4'"):
        rtn.apply(wide_model(), parse_level("nvfp4"), None, 0)
    request = Request(models=("ref-s",), methods=("rtn",), levels=("mxfp4", "NVFP4", "nvfp4"), tasks=("urn",), limit=10)
    planned = {run.level.text: run.key.compression_data_hash != "" for group in make_plan(request) for run in group.runs}
    assert planned == {"mxfp4": False, "nvfp4": True}


def test_a_default_level_fits_the_model(caplog: pytest.LogCaptureFixture) -> None:
    """Where groups of 128 do not divide every layer, the default is the largest group that does, which is said and recorded."""
    request = Request(models=("ref-s",), methods=("awq",), tasks=("urn",), limit=10)
    (group,) = make_plan(request)
    assert [run.key.level for run in group.runs] == ["w4a16-g64"]
    assert "ref-s: level of awq is w4a16-g64" in caplog.text
    with pytest.raises(UsageError, match="128 does not divide"):
        make_plan(Request(models=("ref-s",), methods=("awq",), levels=("w4a16-g128",), tasks=("urn",), limit=10))
