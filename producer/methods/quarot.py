"""QuaRot: rotate by random Hadamard matrices, quantize weights by GPTQ, round activations per token (simulated). Nothing is learned.

As in the paper, the range of every weight grid is searched below that of its weights, activations of up to 4 bits are clipped at 0.9 of
each token's largest magnitude, and the inputs of output projections are rotated across heads where a Hadamard matrix for their number is
known.
"""

from typing import Any

from producer.methods.gptq import BLOCK, DAMPENING, experts_of, gptq_modifier
from producer.methods.shared.contract import DATA, Job
from producer.methods.shared.float64_transform import require_same_function, transform
from producer.methods.shared.grid import verify_grid
from producer.methods.shared.linear_layers import probe_tokens
from producer.methods.shared.method_options import Option, number, words
from producer.methods.shared.quantization import CLIP_SEARCH, WEIGHTS_AND_ACTIVATIONS, fits_scaling, quantization_settings, quantize
from producer.methods.shared.rotation import Rotation, is_hadamard, no_hadamard, random_rotations
from schemas.levels import Level

ACTIVATION_CLIP, CLIPPED_BITS = 0.9, 4  # the paper's, section 5; with more bits clipping costs more than the finer steps give
TOGETHER, APART = "together", "apart"


def quarot(model: Any, job: Job) -> Any:
    """Return the rotated model with weights and activations rounded."""
    return quantize_rotated(model, random_rotations(model, job.seed, across_heads=job.settings["heads"] == TOGETHER), job)


def quantize_rotated(model: Any, rotations: Any, job: Job) -> Any:
    """Return the model rotated and then quantized by GPTQ.

    The change of the logits by rotation alone is recorded as `model.rotation_change`. Raises PostConditionError if it exceeds rounding.
    """
    change = transform(model, Rotation(rotations), probe_tokens(model, job.data), job.device)
    model.rotation_change = require_same_function(change, "rotation")
    clip = job.settings["weight_clip"]
    return quantize(model, lambda: [gptq_modifier(model, job.level, clip)], job, job.settings["activation_clip"])


def verify_rotated(model: Any, job: Job) -> dict[str, Any]:
    """Return how much rotation alone changed the logits, and the post-conditions that all quantized models have."""
    return {"logit_change_by_rotation": model.rotation_change} | verify_grid(model, job)


def fits_rotation(config: Any, level: Level) -> str:
    """Return why a model cannot be rotated and quantized at a level, or ""."""
    return fits_scaling(config, level) or no_hadamard(config)


def settings_for(level: Level) -> dict[str, Any]:
    """Return the settings that a QuaRot run records."""
    solver = {"dampening": DAMPENING, "block": BLOCK, **experts_of(level)}
    without_scale = {name: value for name, value in quantization_settings(level).items() if name != "weight_scale"}  # `weight_clip` says it
    return without_scale | {"rotations": "random Hadamard R1, R2, R4", **solver}


def default_heads(config: Any, level: Level) -> str:
    """Return whether heads are rotated together: where a Hadamard matrix for their number is known."""
    return TOGETHER if is_hadamard(config.num_attention_heads) else APART


def fits_heads(config: Any, level: Level, heads: str) -> str:
    """Return why heads cannot be rotated together, or ""."""
    n_heads = config.num_attention_heads
    return f"no Hadamard matrix of size {n_heads} (heads) is known" if heads == TOGETHER and not is_hadamard(n_heads) else ""


CLIPPING = {
    "weight_clip": Option(
        "how the range of every weight grid is found [search]", "search or none", words(search=CLIP_SEARCH, none={}), lambda *_: CLIP_SEARCH
    ),
    "activation_clip": Option(
        "share of a token's largest magnitude at which it is clipped [0.9 up to 4 bits, else 1]",
        "a number from 0.1 to 1",
        number(0.1, 1),
        lambda config, level: ACTIVATION_CLIP if level.activation_bits <= CLIPPED_BITS else 1.0,
    ),
}
HEADS = Option(
    "whether output projections see heads rotated together [together where a Hadamard matrix for their number is known]",
    f"{TOGETHER} or {APART}",
    words(**{name: name for name in (TOGETHER, APART)}),
    default_heads,
    fits_heads,
)
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
    options={**CLIPPING, "heads": HEADS},
)
