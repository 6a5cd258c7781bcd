"""What the weights of a checkpoint are stored as: the one place that reads `quantization_config`.

In: a Hugging Face config.  Out: the format's name and its settings.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

GPTQ, AWQ, COMPRESSED_TENSORS, GGUF = "gptq", "awq", "compressed-tensors", "gguf"


class Quantization(NamedTuple):
    """The name of the format that weights are quantized in, "" for plain weights, and the settings beside it."""

    format: str
    settings: Mapping[str, Any]


def quantization(config: Any) -> Quantization:
    """Return what a config says of how its weights are quantized."""
    stored = getattr(config, "quantization_config", None) or {}
    settings = stored if isinstance(stored, dict) else stored.to_dict()
    name = settings.get("quant_method", "")
    return Quantization(str(getattr(name, "value", name)), settings)
