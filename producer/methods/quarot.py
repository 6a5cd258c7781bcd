"""QuaRot: random Hadamard rotations, GPTQ weights, activations rounded per token. Nothing is learned; simulated in memory."""

from typing import Any

from producer.methods.gptq import BLOCK, DAMPENING, gptq_modifier
from producer.methods.shared.architectures import MODELS
from producer.methods.shared.contract import DATA, Job, Method
from producer.methods.shared.float64_transform import require_same_function, transform
from producer.methods.shared.linear_layers import probe_tokens
from producer.methods.shared.llm_compressor import oneshot, split_experts
from producer.methods.shared.quantization import (
    ACTIVATION_LEVELS,
    accepts_activations,
    fits_groups,
    quantization_settings,
    simulate_rounding,
    verify_grid,
)
from producer.methods.shared.rotation import Rotation, no_hadamard, random_rotations
from schemas.levels import Level


def quarot(model: Any, job: Job) -> Any:
    """Return the rotated model with weights and activations rounded."""
    model = split_experts(model)
    return quantize_rotated(model, random_rotations(model, job.seed), job)


def quantize_rotated(model: Any, rotations: Any, job: Job) -> Any:
    """Rotate a model, check that this alone changes nothing, then quantize it by GPTQ; the change is kept on the model."""
    change = transform(model, Rotation(rotations), probe_tokens(model, job.data), job.device)
    model.rotation_change = require_same_function(change, "rotation")
    return simulate_rounding(oneshot(model, lambda: [gptq_modifier(job.level)], job.data, job.device), job.level)


def verify_rotated(model: Any, job: Job) -> dict[str, Any]:
    """Return how much rotation alone moved the logits, and the grid check."""
    return {"logit_change_by_rotation": model.rotation_change} | verify_grid(model, job)


def fits_rotation(config: Any, level: Level) -> str:
    """Return why a model cannot be rotated and quantized at a level, or ""."""
    return fits_groups(config, level) or no_hadamard(config)


def settings_for(level: Level) -> dict[str, Any]:
    """Return what a QuaRot run records."""
    return quantization_settings(level) | {"rotations": "random Hadamard R1, R2, R4", "dampening": DAMPENING, "block": BLOCK}


METHOD = Method(
    name="quarot",
    kind="weight + activation, simulated",
    paper="Ashkboos et al. 2024, arXiv:2404.00456",
    default_level="w4a4",
    levels=ACTIVATION_LEVELS,
    needs=DATA,
    models=MODELS,
    compress=quarot,
    settings_for=settings_for,
    accepts=accepts_activations,
    fits=fits_rotation,
    verify=verify_rotated,
)
