"""Scales of the MX formats: exact powers of two, equal to those of compressed-tensors on a CPU, without any function that a GPU rounds."""

import pytest
import torch
from compressed_tensors.quantization import preset_name_to_scheme
from compressed_tensors.quantization.utils import calculate_qparams, helpers, mxfp_utils

from producer.methods.shared.number_formats import FORMATS, preset_scheme
from producer.models import mx_scales


def every_seventeenth_bit_pattern() -> torch.Tensor:
    """Normal float32 numbers over the whole range below 1.75 * 2^127, from which the library has no scale, and zero."""
    bits = torch.arange(2**23, 0x7F600000, 65_537, dtype=torch.int64).to(torch.int32)
    return torch.cat([torch.zeros(1), bits.view(torch.float32)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_bits", [4, 8])
def test_exponents_are_those_of_the_library(dtype: torch.dtype, num_bits: int) -> None:
    """Every binary exponent with many fractions, next to the border at which the scale doubles as well; 0 has no exponent."""
    x = every_seventeenth_bit_pattern().to(dtype)
    assert torch.equal(mx_scales.biased_exponents(x, num_bits), mxfp_utils.generate_mx_scales(x, num_bits))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scales_are_exact_for_every_exponent(dtype: torch.dtype) -> None:
    """All 256 exponents, in float64 for reference: 2^-127 is a subnormal, 255 is infinite in float32 and NaN in no format here."""
    args = preset_name_to_scheme("MXFP4", ["Linear"]).weights
    exponent = torch.arange(256)
    expected = torch.pow(torch.tensor(2.0, dtype=torch.float64), exponent.double() - 127).to(dtype)
    assert torch.equal(mx_scales.scales(args, exponent.to(dtype)), expected)
    other = preset_name_to_scheme("NVFP4", ["Linear"]).weights
    assert mx_scales.scales(other, expected) is expected


@pytest.mark.parametrize("level", [name for name in FORMATS if name.startswith("mx")])
def test_a_device_with_inexact_powers_gives_exact_scales(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power that is one unit in the last place off, as a GPU's may be, reaches no scale."""
    monkeypatch.setattr(helpers, "generate_mx_scales", mxfp_utils.generate_mx_scales)
    monkeypatch.setattr(
        helpers, "maybe_convert_from_mx_exp", lambda args, scale: mxfp_utils.maybe_convert_from_mx_exp(args, scale) * (1 + 2**-23)
    )
    weight = torch.randn(64, 4, 32, generator=torch.Generator().manual_seed(0))
    args = preset_scheme(FORMATS[level]).weights
    scale, _ = calculate_qparams(weight.amin(-1), weight.amax(-1), args)
    assert torch.equal(torch.frexp(scale)[0], torch.full_like(scale, 0.5))
