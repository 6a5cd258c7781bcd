"""Choose the path that answers a model: the prefill engine, or the model's own forward pass.

In: a config.  Out: a `Route`. The engine is correct only for models that consist of embedding, decoder layers, final norm and head, and of
scales or caps that it knows. For the model types in `TESTED` the tests compare it with the model's own forward pass. For any other type the
two are compared on the first items of every run, and where they disagree the model's own forward pass answers that run.
"""

from typing import Any, NamedTuple

import numpy as np

# Types whose every layer, scale and window the tests compare with the model's own forward pass (tests/prefill/test_producer_families.py).
TESTED = (
    "apertus", "arcee", "bitnet", "cohere", "cohere2", "cohere2_moe", "cwm", "dots1", "ernie4_5", "ernie4_5_moe", "exaone4", "exaone_moe",
    "flex_olmo", "gemma", "gemma3_text", "glm", "glm4", "glm4_moe", "granite", "granitemoe", "granitemoeshared", "helium",
    "hunyuan_v1_dense", "hunyuan_v1_moe", "hy_v3", "jais2", "llama", "minimax_m2", "ministral", "ministral3", "mistral",
    "mixtral", "olmo", "olmo2", "olmo3", "olmoe", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss", "smollm3", "solar_open",
    "starcoder2",
)  # fmt: skip
FAST, CHECKED, GENERIC = "prefill engine", "prefill engine, checked on the first items", "the model's own forward pass"
LENGTH_DEPENDENT = ("dynamic", "longrope")  # rotary embeddings that depend on the length of a prompt
TOLERANCE = {"float32": 1e-5}  # largest difference by rounding, relative to the largest logit
SIXTEEN_BITS = 2.0  # the same for 16-bit dtypes, in multiples of the dtype's machine epsilon


class Route(NamedTuple):
    """The path that answers a model, and the reason why it is not the prefill engine ("" if it is)."""

    path: str
    reason: str = ""


def route_of(config: Any, *, loaded: bool) -> Route:
    """Return the path for a model, chosen from its config alone; for CHECKED the caller must still compare both paths with `agree`.

    loaded : whether all weights are on the device, which the comparison needs.
    """
    model_type, config = config.model_type, config.get_text_config()
    if not shares_prefix(config):
        return Route(GENERIC, "its rotary embeddings depend on the length of a prompt")
    if getattr(config, "attn_logit_softcapping", None):
        return Route(GENERIC, "it caps attention scores")
    if getattr(config, "use_bidirectional_attention", None):
        return Route(GENERIC, "its attention is not causal")
    if model_type not in TESTED and not loaded:
        return Route(GENERIC, "its type is not a tested one, and it does not fit on the device to be compared")
    return Route(FAST if model_type in TESTED else CHECKED)


def agree(first: Any, second: Any, dtype: Any) -> bool:
    """Return whether option logits and log-sum-exps of the same items, computed in two ways, differ by no more than rounding.

    dtype : the dtype that the model computes in.
    """
    import torch

    relative = TOLERANCE.get(str(dtype).removeprefix("torch."), SIXTEEN_BITS * torch.finfo(dtype).eps)
    pairs = [(first.logits, second.logits), (first.logsumexp, second.logsumexp)]
    largest = max(1.0, *(float(np.nanmax(np.abs(values))) for _, values in pairs))
    return all(np.allclose(one, other, rtol=0, atol=relative * largest, equal_nan=True) for one, other in pairs)


def shares_prefix(config: Any) -> bool:
    """Return whether a prefix that was computed once can be used for prompts of any length."""
    return not any(kind in LENGTH_DEPENDENT for kind in rope_types(config.get_text_config()))


def rope_types(config: Any) -> set[str]:
    """Return the kinds of rotary embeddings in a config, which has one for all layers or one per type of layer."""
    parameters = getattr(config, "rope_parameters", None) or {}
    each = [parameters, *(value for value in parameters.values() if isinstance(value, dict))]
    return {str(parameters_of["rope_type"]) for parameters_of in each if parameters_of.get("rope_type")}


def reset_rotary(model: Any) -> None:
    """Make dynamic rotary embeddings forget the longest prompt so far, which otherwise changes the logits of shorter prompts after it."""
    if shares_prefix(model.config):
        return
    for module in model.modules():
        for name in [name for name in vars(module) if name.endswith("max_seq_len_cached")]:
            setattr(module, name, 0)
