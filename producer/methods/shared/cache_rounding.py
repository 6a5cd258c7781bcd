"""Round the keys and values that attention caches to the formats in which servers store them; simulated in every forward pass.

In: a model, the name of a format.  Out: the same model, whose attention works on rounded keys and values, and the bits that a token takes.

Keys are rounded after the rotary embedding, as they lie in a cache. How a token is rounded depends on that token alone, so batches and
shared prefixes change nothing. Formats: `fp8` is E4M3 with a scale of 1, vLLM's default; `int8` and `int4` have a scale and a smallest
value in 16 bits for every token and head, as LMDeploy stores them; `nvfp4` has an E4M3 scale for 16 neighbouring values and an overall
scale of 1. Where a method rotates a model, keys are rotated as well before they are rounded (R3 of Ashkboos et al. 2024, arXiv:2404.00456,
section 4).
"""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from producer.methods.shared.linear_layers import probe_tokens
from producer.methods.shared.number_formats import nearest_e2m1, wide
from producer.methods.shared.rotation import hadamard, head_size
from producer.models.embedded import EmbeddedConfig
from producer.models.model_class import model_class
from schemas.errors import PostConditionError
from schemas.levels import CACHE_BITS

GROUP = 16  # values that share a scale in nvfp4
SCALE_BITS, INTEGER_SCALE_BITS = 8, 32  # per group of nvfp4; scale and smallest value of a token and head
CACHE_ARGUMENTS = ("past_key_values", "layer_past")  # what attention layers of transformers call the cache
LATENT = "kv_lora_rank"  # configs with this key cache one compressed vector per token, not keys and values


class CacheSize(NamedTuple):
    """What the cached keys and values of a model take: scales included; bytes are those of one token in all layers."""

    cache_bits_per_value: float
    cache_bytes_per_token: float


def no_cache(config: Any, name: str) -> str:
    """Return why the keys and values of a model with this config cannot be rounded to a format, or ""; needs no weights."""
    text = config.get_text_config()
    if getattr(text, LATENT, None):
        return f"its model type is {text.model_type!r}, which caches one compressed vector per token in place of keys and values"
    if name == "nvfp4" and head_size(text) % GROUP:
        return f"groups of {GROUP} values do not divide its heads of {head_size(text)}"
    if isinstance(config, EmbeddedConfig):
        return ""
    import torch

    with torch.device("meta"):
        layers = _attention_layers(model_class(config).from_config(config))
    return "" if layers else f"its model type is {text.model_type!r}, which has no attention layers that take a cache"


def cache_settings(name: str, *, rotated: bool) -> dict[str, Any]:
    """Return the settings that a run with a rounded cache records."""
    scales = {"fp8": "1", "nvfp4": f"E4M3 per {GROUP} values"}.get(name, "scale and smallest value per token and head")
    return {"kv_cache": name, "kv_cache_bits": CACHE_BITS[name], "kv_scales": scales, **({"kv_rotation": "Hadamard R3"} if rotated else {})}


def round_cache(model: Any, name: str, *, rotated: bool) -> CacheSize:
    """Make every attention layer of a model round its keys and values, and return what they take.

    rotated : whether keys are rotated by a Hadamard matrix before they are rounded, and back.
    Raises PostConditionError if the keys and values of a layer do not pass through the cache.
    """
    import torch

    layers = _attention_layers(model)
    rotation = hadamard(head_size(model.config.get_text_config()), torch.Generator().manual_seed(0)) if rotated else None
    rounding = {name_of: RoundCache(name, rotation) for name_of in layers}
    for name_of, layer in layers.items():
        layer.register_forward_pre_hook(rounding[name_of], with_kwargs=True)
    try:
        with torch.no_grad():
            model(input_ids=probe_tokens(model, None), use_cache=False)
    except (AttributeError, TypeError) as error:
        raise PostConditionError(f"the cache of type {model.config.model_type!r} cannot be rounded: {error}") from error
    if unused := [name_of for name_of, each in rounding.items() if each.values is None]:
        raise PostConditionError(f"the keys and values of {unused[0]} do not pass through the cache, so they cannot be rounded")
    values = sum(each.values or 0 for each in rounding.values())
    bits = sum(each.bits for each in rounding.values())
    return CacheSize(bits / values, bits / 8)


class RoundCache:
    """Forward pre-hook of an attention layer: keys and values are rounded on their way into the cache, whether there is one or not.

    values, bits : numbers that a token caches in this layer, None until a forward pass; and the bits that they take.
    """

    def __init__(self, name: str, rotation: Any = None) -> None:
        self.name, self.rotation = name, rotation
        self.values: int | None = None
        self.bits = 0

    def __call__(self, layer: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the layer's arguments with its cache replaced by one that rounds."""
        argument = _cache_argument(layer)
        return arguments, {**named, argument: _RoundingCache(named.get(argument), self)}

    def rounded(self, keys: Any, values: Any) -> tuple[Any, Any]:
        """Return keys and values, (item, head, token, width) each, after rounding."""
        if self.values is None:
            counts = [tensor.shape[1] * tensor.shape[3] for tensor in (keys, values)]
            scales = keys.shape[1] + values.shape[1]
            extra = {"fp8": 0, "nvfp4": sum(counts) // GROUP * SCALE_BITS}.get(self.name, scales * INTEGER_SCALE_BITS)
            self.bits, self.values = sum(counts) * CACHE_BITS[self.name] + extra, sum(counts)
        if self.rotation is None:
            return round_values(keys, self.name), round_values(values, self.name)
        rotation = self.rotation.to(device=keys.device, dtype=wide(keys).dtype)
        turned = round_values(wide(keys) @ rotation, self.name) @ rotation.T
        return turned.to(keys.dtype), round_values(values, self.name)


class _RoundingCache:
    """A cache, or none, into which only rounded keys and values go."""

    def __init__(self, cache: Any, rounding: RoundCache) -> None:
        self.cache, self.rounding = cache, rounding

    def update(self, keys: Any, values: Any, *more: Any, **named: Any) -> Any:
        """Return all keys and values so far, as a cache of transformers does."""
        rounded = self.rounding.rounded(keys, values)
        return rounded if self.cache is None else self.cache.update(*rounded, *more, **named)

    def get_seq_length(self, *layer: int) -> int:
        """Return how many tokens came before."""
        return 0 if self.cache is None else int(self.cache.get_seq_length(*layer))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cache, name)


def round_values(x: Any, name: str) -> Any:
    """Return the nearest values of a format, in the dtype of x. One head of one token is x[..., :]; its last dimension is the width."""
    import torch

    exact = wide(x)
    if name == "fp8":
        largest = torch.finfo(torch.float8_e4m3fn).max
        return exact.clamp(-largest, largest).float().to(torch.float8_e4m3fn).to(x.dtype)
    if name == "nvfp4":
        groups = exact.unflatten(-1, (-1, GROUP))
        scale = round_values(groups.abs().amax(-1, keepdim=True) / 6, "fp8")
        units = torch.where(scale > 0, groups / scale, 0).clamp(-6, 6)
        return (nearest_e2m1(units) * scale).flatten(-2).to(x.dtype)
    most = 2 ** CACHE_BITS[name] - 1
    lowest = exact.amin(-1, keepdim=True).half().to(exact.dtype)
    step = ((exact.amax(-1, keepdim=True) - lowest) / most).clamp_min(torch.finfo(torch.float16).tiny).half().to(exact.dtype)
    return (((exact - lowest) / step).round().clamp(0, most) * step + lowest).to(x.dtype)


def _attention_layers(model: Any) -> dict[str, Any]:
    """Return the modules that take a cache, by name, without those that only hand it on."""
    takes = {name: module for name, module in model.named_modules() if "Attention" in type(module).__name__ and _cache_argument(module)}
    return {name: module for name, module in takes.items() if not any(other.startswith(f"{name}.") for other in takes)}


def _cache_argument(module: Any) -> str:
    """Return what a module calls the cache that it takes, "" if it takes none."""
    return next((name for name in CACHE_ARGUMENTS if name in inspect.signature(module.forward).parameters), "")
