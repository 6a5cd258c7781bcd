"""Checkpoint: run a model that somebody else compressed or pruned without changing it."""

import logging
from typing import Any

from producer.methods.shared.contract import NOTHING, Job, Method
from producer.methods.shared.linear_layers import target_layers
from producer.models.compressed_weights import rounds_inputs
from producer.models.stored_as import not_simulated, quantization, stored_level
from schemas.errors import PostConditionError
from schemas.levels import FULL_BITS, NO_LEVEL, Level, parse_level

log = logging.getLogger(__name__)

SPARSITY_ROUNDING = 0.02  # a level of 0.5 names a checkpoint with 48 to 52 % zeros


def found_level(config: Any, level: Level) -> Level:
    """Return the requested level, or if none was requested the level stated in the checkpoint's own settings."""
    return parse_level(stored_level(config)) if level.kind == "none" else level


def contradicted(config: Any, level: Level) -> str:
    """Return why a requested level contradicts the checkpoint's own settings, or ""."""
    stored = parse_level(stored_level(config))
    if level.kind == "none" or stored.text == level.text:
        return ""
    if stored.kind == "none":  # `describe` checks a sparsity by counting zeros; a name cannot be checked and is accepted
        return "" if level.kind != "quantization" else "its weights are not stored as quantized ones"
    if stored.kind == "name" and stored.bits is None:
        return ""  # the settings state no single number of bits, so nothing contradicts the requested name
    return "" if _bits(stored) == _bits(level) else f"its own settings say {stored.text}; leave --level out to use that"


def describe(model: Any, job: Job) -> dict[str, Any]:
    """Return how the weights are stored, and the share of zeros in the linear layers.

    Raises PostConditionError if the level states another share of zeros than the weights have.
    """
    weights = [layer.weight for layer in target_layers(model).values() if getattr(layer, "weight", None) is not None]
    plain = [weight for weight in weights if weight.is_floating_point()]
    total = sum(weight.numel() for weight in plain)
    sparsity = sum(int((weight == 0).sum()) for weight in plain) / total if total else 0.0
    if job.level.kind in ("sparsity", "pattern") and abs(sparsity - job.level.fraction) > SPARSITY_ROUNDING:
        raise PostConditionError(f"--level says {job.level.text}, but {sparsity:.2%} of the checkpoint's weights are zero")
    if left_out := not_simulated(model.config, rounds_inputs=rounds_inputs(model)):
        log.warning("the stored weights are used without the %s that the checkpoint's own kernels apply", " and the ".join(left_out))
    stored = quantization(model.config)
    stored_as = stored.writer or stored.format or "plain weights"
    return {"stored_as": stored_as, "sparsity": sparsity, **({"not_simulated": left_out} if left_out else {})}


def _bits(level: Level) -> float | None:
    return float(level.weight_bits) if level.kind == "quantization" else level.bits if level.kind == "name" else FULL_BITS


METHOD = Method(
    name="checkpoint",
    kind="deployed artifact",
    paper="-",
    default_level=NO_LEVEL,
    levels="what the checkpoint is, such as Q4_K_M or FP8_BLOCK; by default what its files say",
    needs=NOTHING,
    models="what the backend runs: compressed-tensors, GPTQ, AWQ, AutoRound, HQQ, FP8, bitsandbytes, GGUF",
    compress=lambda model, job: model,
    settings_for=lambda level: {},
    accepts=lambda level: "",
    fits=contradicted,
    verify=describe,
    level_of=found_level,
    changes=False,
)
