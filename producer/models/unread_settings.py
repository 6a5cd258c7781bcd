"""Name settings of a config that change the logits of other families and that the class of this model does not read.

In: a config.  Out: their names. A checkpoint converted from one family to another often keeps such settings. transformers ignores them
without a word, and so does everything here; other programs that run the same files may not.
"""

import inspect
import sys
from typing import Any

from producer.models.embedded import EmbeddedConfig

ELSEWHERE = (
    "sliding_window", "attn_logit_softcapping", "final_logit_softcapping", "logit_scale", "logits_scaling", "embedding_multiplier",
    "attention_multiplier", "residual_multiplier", "query_pre_attn_scalar", "scale_emb", "scale_depth", "dim_model_base", "alibi",
    "clip_qkv", "qk_layernorm", "use_qk_norm", "no_rope_layers", "partial_rotary_factor", "rotary_pct", "pruned_heads", "layer_types",
)  # fmt: skip
WITHOUT_EFFECT: tuple[Any, ...] = (None, False, 1, [], {})
FULL = "full_attention"  # what every layer has whose class knows no windows


def unread_settings(config: Any) -> list[str]:
    """Return `name = value` of each setting that would change logits and is not read.

    There is none in the embedded models, nor where transformers has no model of this type.
    """
    if isinstance(config, EmbeddedConfig):
        return []
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    kind = type(config)
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return []
    stated = {name: getattr(config, name, None) for name in ELSEWHERE if name not in kind.__dataclass_fields__}
    stated = {name: value for name, value in stated.items() if value not in WITHOUT_EFFECT}
    if getattr(config, "use_sliding_window", True) is False:
        stated.pop("sliding_window", None)
    if set(stated.get("layer_types") or ()) == {FULL}:
        del stated["layer_types"]
    code = inspect.getsource(sys.modules[MODEL_FOR_CAUSAL_LM_MAPPING[kind].__module__]) if stated else ""
    unread = [f"{name} = {value}" for name, value in stated.items() if name not in code]
    rope = getattr(config, "rope_parameters", None) or {}
    untyped = rope.get("rope_type") == "default" and rope.get("factor") not in WITHOUT_EFFECT
    return [*unread, *([f"rope_scaling factor = {rope['factor']} without a type"] if untyped else [])]
