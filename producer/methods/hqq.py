"""HQQ: find each group's zero point by half-quadratic optimization, without data. The library's own solver.

Codes, scales and zero points are the library's; weights are what they stand for, so that the forward pass is the ordinary one. Groups are
neighbouring columns of a row (`axis=1`), as kernels need them and transformers has them. Zero points are no integers.
Source: Badri and Shaji 2023, https://mobiusml.github.io/hqq_blog/; there is no paper.
"""

from functools import partial
from typing import Any

from producer.methods.shared.contract import NOTHING, Job
from producer.methods.shared.grid import verify_grid
from producer.methods.shared.linear_layers import target_layers
from producer.methods.shared.quantization import UNQUANTIZED, WEIGHT_ONLY, accepts_weights
from schemas.levels import FULL_BITS, Level

BITS = (2, 3, 4, 5, 6, 8)


def quantize_half_quadratic(model: Any, job: Job) -> Any:
    """Return the model with every target weight on the grid that the library finds for it."""
    import torch
    from hqq.core.quantize import Quantizer

    for layer in target_layers(model).values():
        weight, device = layer.weight.detach(), job.device or layer.weight.device
        group = job.level.group_size or weight.shape[1]
        codes, meta = Quantizer.quantize(
            weight.to(device), nbits=job.level.weight_bits, group_size=group, axis=1, bitpack=False, device=str(device)
        )
        scale, zero = (meta[name].to(torch.float16).float().reshape(len(weight), -1) for name in ("scale", "zero"))
        steps = codes.float().reshape(len(weight), -1, group) - zero[..., None]
        layer.weight.data = (steps * scale[..., None]).reshape(weight.shape).to(weight.device, weight.dtype)
        layer.register_buffer("weight_scale", scale.to(weight.device))
        layer.register_buffer("weight_zero_point", (zero - 2 ** (job.level.weight_bits - 1)).to(weight.device))
    return model


def _settings_for(level: Level) -> dict[str, Any]:
    """Return the settings that a run records: the solver's are the library's defaults."""
    return {
        "weight_grid": "asymmetric, zero points in float16",
        "axis": 1,
        "solver": "proximal, 20 steps at most, p 0.7",
        "kept": UNQUANTIZED,
    }


def _accepts(level: Level) -> str:
    reason = accepts_weights(level)
    return reason if reason or level.weight_bits in BITS else f"the library has {', '.join(map(str, BITS))} bits"


METHOD = WEIGHT_ONLY(
    name="hqq",
    paper="Badri and Shaji 2023, mobiusml.github.io/hqq_blog",
    default_level="w4a16-g64",
    levels="w2a16 to w8a16 but w7a16, with -gN (N weights share a scale) or -channel (a row does)",
    needs=NOTHING,
    library="hqq",
    compress=quantize_half_quadratic,
    settings_for=_settings_for,
    accepts=_accepts,
    verify=partial(verify_grid, zero_bits=FULL_BITS),
    unsavable="its zero points are no integers, which the formats that can be written need",
)
