"""NVFP4 checkpoints of NVIDIA ModelOpt, as compressed-tensors writes the same numbers.

In: a config's settings, or the tensors of a checkpoint by name.  Out: both in the words of compressed-tensors, whose reader unpacks the
weights and rounds the inputs. ModelOpt stores two factors where compressed-tensors has their inverses: `weight_scale_2` for all scales of a
weight, `input_scale` for those of its inputs (modelopt/torch/export/quant_utils.py).
"""

import fnmatch
from collections.abc import Mapping
from typing import Any

from schemas.errors import HedgemarkError

NAME, ALGORITHM, GROUP = "modelopt", "NVFP4", 16
INVERSES = {"weight_scale_2": "weight_global_scale", "input_scale": "input_global_scale"}


def is_nvfp4(settings: Mapping[str, Any]) -> bool:
    """Return whether settings are those of NVFP4 with rounded inputs, in the group that the format has."""
    groups = dict(settings.get("config_groups") or {}).values()
    sizes = [settings.get("group_size") or GROUP, *((group.get("weights") or {}).get("group_size", GROUP) for group in groups)]
    inputs = all(group.get("input_activations") for group in groups)
    return str(settings.get("quant_algo")).upper() == ALGORITHM and inputs and {*sizes} == {GROUP}


def as_compressed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of NVFP4 in the words of compressed-tensors; excluded modules may be patterns, and stand for all below them."""
    from compressed_tensors.quantization import preset_name_to_scheme  # type: ignore[import-untyped]

    excluded = [*(settings.get("exclude_modules") or ()), *(settings.get("ignore") or ())]
    ignore = [f"re:{fnmatch.translate(each)}" for name in excluded for each in (name, f"{name}.*")]
    group = preset_name_to_scheme(ALGORITHM, ["Linear"]).model_dump(mode="json")
    return {**settings, "config_groups": {"group_0": group}, "ignore": ignore}


def rename(tensors: dict[str, Any]) -> None:
    """Give the tensors of NVFP4 layers the names, shapes and meaning that compressed-tensors has for them.

    Raises HedgemarkError for a layer that lacks one of its scales, or holds one that is no single positive number.
    """
    for layer in [name.removesuffix(".weight_scale") for name in tensors if name.endswith(".weight_scale")]:
        for part, inverse in INVERSES.items():
            factor = tensors.pop(f"{layer}.{part}", None)
            if factor is None or not factor.is_floating_point() or factor.numel() != 1 or not 0 < float(factor) < float("inf"):
                found = "none" if factor is None else f"{tuple(factor.shape)} {factor.dtype}"
                raise HedgemarkError(f"layer {layer} should have one positive {part}, and the files hold {found}")
            tensors[f"{layer}.{inverse}"] = 1 / factor.float().reshape(1)
        if f"{layer}.weight" in tensors:
            tensors[f"{layer}.weight_packed"] = tensors.pop(f"{layer}.weight")
