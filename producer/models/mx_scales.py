"""Exact scales of the MX formats on every device: powers of two made from their bits.

compressed-tensors computes 2 ** exponent and log2 in float32, which a CPU does exactly and a GPU need not; a scale that is next to a power
of two is none that MXFP4 and MXFP8 can store (E8M0, OCP Microscaling Formats 1.0). Here exponents come from `frexp`, and powers of two are
assembled as bits. The results are those of the library on a CPU.
"""

from typing import Any

BIAS = 127  # of E8M0 and of float32
MANTISSA_BITS = 23  # of float32
LARGEST_EXPONENT = {4: 2, 8: 8}  # of E2M1's 6 and E4M3's 448, by bits of an element
ROUNDS_UP = 0.875  # a fraction in [0.5, 1) from which the library takes the next power of two


def use_exact_scales() -> None:
    """Let compressed-tensors compute the scales of MX formats with the functions below, which is done once."""
    from compressed_tensors.quantization.utils import helpers  # type: ignore[import-untyped]

    if helpers.generate_mx_scales is not biased_exponents:
        helpers.generate_mx_scales, helpers.maybe_convert_from_mx_exp = biased_exponents, scales


def biased_exponents(x: Any, num_bits: int = 4) -> Any:
    """Return the biased exponent of each group's scale, from the group's largest magnitude; minus infinity for 0.

    num_bits : bits of an element, 4 or 8.
    """
    import torch

    fraction, exponent = torch.frexp(x.float())
    exponent = exponent - 1 + (fraction >= ROUNDS_UP).int()
    usual = torch.isfinite(x) & (x > 0)
    return BIAS - LARGEST_EXPONENT[num_bits] + torch.where(usual, exponent.to(x.dtype), torch.log2(x))


def scales(args: Any, scale: Any) -> Any:
    """Return the scales that biased exponents mean, in their dtype; those of other formats as they are."""
    import torch
    from compressed_tensors.quantization.utils.mxfp_utils import should_generate_mx_scales  # type: ignore[import-untyped]

    if not should_generate_mx_scales(args):
        return scale
    exponent = scale.to(torch.int32)
    normal = (exponent << MANTISSA_BITS).view(torch.float32)
    return torch.where(exponent > 0, normal, 2.0**-BIAS).to(scale.dtype)  # exponent 0 means 2^-127, which float32 holds as a subnormal
