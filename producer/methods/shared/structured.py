"""What the structured pruning methods share: accepted levels, and the share of weights removed."""

from functools import partial
from typing import Any

from producer.methods.shared.architectures import LLAMA_MODELS
from producer.methods.shared.contract import Method
from schemas.levels import Level

STRUCTURED_LEVELS = "a fraction in [0, 1) of the structures removed"


def accepts_fraction(level: Level) -> str:
    """Return why a structured method cannot take a level, or ""."""
    return "" if level.kind == "sparsity" else "it removes whole structures, so its level is a fraction"


def count_weights(model: Any) -> int:
    """Return the number of weights in all decoder layers, norms and routers included."""
    return sum(parameter.numel() for parameter in model.model.layers.parameters())


def left_over(model: Any, before: int) -> dict[str, Any]:
    """Return the share of decoder weights removed, and the bytes of the model at 16 bits per weight.

    before : number of weights in all decoder layers of the dense model.
    """
    return {
        "decoder_weights_removed": 1 - count_weights(model) / before,
        "bytes": 2 * sum(parameter.numel() for parameter in model.parameters()),
    }


STRUCTURED = partial(
    Method, kind="structured", default_level="0.2", levels=STRUCTURED_LEVELS, accepts=accepts_fraction, models=LLAMA_MODELS
)
