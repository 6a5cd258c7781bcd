"""QuaRot: rotate by random Hadamard matrices, quantize weights by GPTQ, round activations per token (simulated). Nothing is learned."""

from typing import Any

from producer.methods.gptq import BLOCK, DAMPENING, experts_of, gptq_modifier
from producer.methods.shared.contract import DATA, Job
from producer.methods.shared.float64_transform import require_same_function, transform
from producer.methods.shared.linear_layers import probe_tokens
from producer.methods.shared.quantization import WEIGHTS_AND_ACTIVATIONS, fits_scaling, quantization_settings, quantize, verify_grid
from producer.methods.shared.rotation import Rotation, no_hadamard, random_rotations
from schemas.levels import Level


def quarot(model: Any, job: Job) -> Any:
    """Return the rotated model with weights and activations rounded."""
    return quantize_rotated(model, random_rotations(model, job.seed), job)


def quantize_rotated(model: Any, rotations: Any, job: Job) -> Any:
    """Return the model rotated and then quantized by GPTQ.

    The change of the logits by rotation alone is recorded as `model.rotation_change`. Raises PostConditionError if it exceeds rounding.
    """
    change = transform(model, Rotation(rotations), probe_tokens(model, job.data), job.device)
    model.rotation_change = require_same_function(change, "rotation")
    return quantize(model, lambda: [gptq_modifier(model, job.level)], job)


def verify_rotated(model: Any, job: Job) -> dict[str, Any]:
    """Return how much rotation alone changed the logits, and the post-conditions that all quantized models have."""
    return {"logit_change_by_rotation": model.rotation_change} | verify_grid(model, job)


def fits_rotation(config: Any, level: Level) -> str:
    """Return why a model cannot be rotated and quantized at a level, or ""."""
    return fits_scaling(config, level) or no_hadamard(config)


def settings_for(level: Level) -> dict[str, Any]:
    """Return the settings that a QuaRot run records."""
    solver = {"dampening": DAMPENING, "block": BLOCK, **experts_of(level)}
    return quantization_settings(level) | {"rotations": "random Hadamard R1, R2, R4", **solver}


METHOD = WEIGHTS_AND_ACTIVATIONS(
    name="quarot",
    paper="Ashkboos et al. 2024, arXiv:2404.00456",
    default_level="w4a4",
    needs=DATA,
    compress=quarot,
    settings_for=settings_for,
    fits=fits_rotation,
    verify=verify_rotated,
    rotates=True,
    unsavable="it rotates activations inside the forward pass",
)
