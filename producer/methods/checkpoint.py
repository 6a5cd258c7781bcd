"""Checkpoint: a model that was compressed before, run as it was found (compressed-tensors, GPTQ, AWQ, GGUF)."""

from typing import Any

from producer.methods.shared.contract import NOTHING, Job, Method
from producer.methods.shared.linear_layers import target_layers
from producer.models.stored_as import quantization
from schemas.levels import NO_LEVEL, Level


def accepts_names(level: Level) -> str:
    """Return why a level does not say what a checkpoint is, or ""; nothing is done with it but to tell runs apart and order them."""
    return "" if level.kind in ("none", "name", "quantization") else "a checkpoint's level is a name, such as Q4_K_M or w4a16-g128"


def describe(model: Any, job: Job) -> dict[str, Any]:
    """Return how the weights were stored, and the share of zeros among floating-point weights."""
    weights = [layer.weight for layer in target_layers(model).values() if getattr(layer, "weight", None) is not None]
    plain = [weight for weight in weights if weight.is_floating_point()]
    total = sum(weight.numel() for weight in plain)
    zeros = sum(int((weight == 0).sum()) for weight in plain)
    return {"stored_as": quantization(model.config).format or "plain weights", "sparsity": zeros / total if total else 0.0}


METHOD = Method(
    name="checkpoint",
    kind="deployed artifact",
    paper="-",
    default_level=NO_LEVEL,
    levels="as found; a name for it, such as Q4_K_M",
    needs=NOTHING,
    models="what the backend runs: compressed-tensors, GPTQ, AWQ, GGUF",
    compress=lambda model, job: model,
    settings_for=lambda level: {},
    accepts=accepts_names,
    fits=lambda config, level: "",
    verify=describe,
)
