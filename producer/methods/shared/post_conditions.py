"""The post-conditions that every method must meet, based on a comparison of the compressed model's logits with the dense model's.

In: a compressed model, the dense model's logits on a few tokens.  Out: JSON-able measurements; a violation raises PostConditionError.
"""

import math
from collections.abc import Mapping
from typing import Any

from producer.methods.shared.architectures import LEAST_REACHED, out_of_reach
from producer.methods.shared.linear_layers import probe_tokens, reached
from schemas.errors import PostConditionError
from schemas.levels import Level

EXACT = 1e-3  # largest logit change by rounding in float32, as a share of the logits' range
EXACT_16_BITS = 0.05  # the same in 16 bits, if products are only summed in another order


def dense_logits(model: Any, data: Any) -> Any:
    """Return the logits of the probe tokens, (sequence, token, vocabulary), in float32."""
    import torch

    with torch.no_grad():
        return model(input_ids=probe_tokens(model, data), use_cache=False).logits.float()


def verify_change(model: Any, data: Any, dense: Any, level: Level, conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the size of a compressed model and how much its logits differ from the dense model's.

    conditions : what the method measured. If its `weights_pruned` is 0, all weights that the level prunes were zero before.
    Raises PostConditionError if a level that should change the model changed no logit, or if a level that should not (fraction 0, no level)
    changed one.
    """
    change = relative_change(dense_logits(model, data), dense)
    whole = level.kind == "none" or (level.kind == "sparsity" and level.fraction == 0) or conditions.get("weights_pruned") == 0
    identity = whole and not level.cache
    if identity and math.isnan(change):
        raise PostConditionError("some logits of the model are NaN or infinite as it was given, so its weights are damaged; get them again")
    if identity and _is_precise(model.dtype) and not change <= EXACT:
        raise PostConditionError(f"level {level.text!r} compresses nothing, yet logits changed by {change:.2g} of their range")
    if not identity and change == 0:
        raise PostConditionError(f"level {level.text!r} changed no logit, so nothing was compressed")
    return {"logit_change": _number(change), **size(model)}


def verify_same(linear: Any, dense: Any, model: Any) -> None:
    """Raise PostConditionError where writing the experts as linear layers changed logits by more than rounding."""
    if bool(((linear == dense) | (linear.isnan() & dense.isnan())).all()):
        return  # so that a model without finite logits gets the sentence of whoever needs them
    change = relative_change(linear, dense)
    if not change <= (EXACT if _is_precise(model.dtype) else EXACT_16_BITS):
        kind = model.config.model_type
        raise PostConditionError(f"writing the matrices of type {kind!r} as linear layers changed logits by {change:.2g} of their range")


def verify_reach(model: Any) -> dict[str, float]:
    """Return the share of the decoder layers' matrices that lie in the layers to compress.

    Raises PostConditionError where it is so small that a level would not say how strongly the model is compressed.
    """
    share, missed = reached(model)
    if share < LEAST_REACHED:
        raise PostConditionError(out_of_reach(share, missed))
    return {"share_of_matrices": share}


def relative_change(logits: Any, dense: Any) -> float:
    """Return the largest absolute difference as a share of the range of the dense logits; NaN if a logit is not finite."""
    spread = (dense.max() - dense.min()).clamp_min(1e-30)
    return float((logits - dense).abs().max() / spread)


def size(model: Any) -> dict[str, int]:
    """Return the number of parameters and their bytes in memory; tied weights count once."""
    weights = list(model.parameters())
    n_bytes = sum(weight.numel() * weight.element_size() for weight in weights)
    return {"parameters": sum(weight.numel() for weight in weights), "bytes_in_memory": n_bytes}


def _is_precise(dtype: Any) -> bool:
    import torch

    return bool(torch.finfo(dtype).eps < 1e-6)


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
