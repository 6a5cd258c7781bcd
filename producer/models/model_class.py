"""The class of transformers that answers text for a config: its causal language model or, for some types, its model of images and text.

In: a config.  Out: a class with `from_pretrained` and `from_config`, or None. A model of images and text that gets text alone answers with
its language model. It is loaded whole, since every tensor of its files must have a place.
"""

from typing import Any

# Types whose answers to text the tests compare with those of their language model (tests/prefill/test_producer_images_and_text.py).
IMAGES_AND_TEXT = (
    "aya_vision", "glm4v", "idefics3", "internvl", "llama4", "llava", "mistral3", "qwen2_5_vl", "qwen2_vl", "qwen3_vl", "smolvlm",
)  # fmt: skip


def model_class(config: Any) -> Any:
    """Return AutoModelForCausalLM or AutoModelForImageTextToText, or None where transformers has no model that answers text."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText

    if config.model_type in IMAGES_AND_TEXT:
        return AutoModelForImageTextToText
    return AutoModelForCausalLM if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING else None
