"""Read config and weights from GGUF files of llama.cpp; a key or tensor that is not supported raises an error that names it.

In: a .gguf file.  Out: a Hugging Face config, and plain tensors under the names that transformers knows. transformers reads such files too,
but ignores what it has no name for: rotary scaling by keys or by the tensor rope_freqs, biases, whole layers.
`gguf_names` has the names.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from producer.models.gguf_names import ARCHITECTURES, EMBEDDING, KEYS, Architecture
from producer.models.stored_as import GGUF
from schemas.errors import HedgemarkError, UsageError

FLOATS = ("F32", "F16", "BF16", "F64")
# Keys that do not change how logits are computed from tokens: a file's origin and use, its tokenizer, how it was quantized or split.
INFORMATIVE = re.compile(
    r"general\.(?!architecture$|type$).*|GGUF\..*|tokenizer\..*|quantize\.imatrix\..*|split\..*|rope\.scaling\.finetuned|vocab_size"
)
FACTORS = "rope_freqs.weight"  # (half of the head's width,) the divisor of each rotary frequency
HEAD_WIDTHS = ("attention.key_length", "attention.value_length", "rope.dimension_count")
YARN = {
    "factor": "factor", "original_context_length": "original_max_position_embeddings", "yarn_beta_fast": "beta_fast",
    "yarn_beta_slow": "beta_slow",
}  # fmt: skip


class GgufFile(NamedTuple):
    """A file's keys and tensors by name, and how its architecture maps to transformers."""

    path: Path
    keys: dict[str, Any]
    tensors: dict[str, Any]
    architecture: Architecture


def open_gguf(path: Path) -> GgufFile:
    """Return the keys and tensors of a file; weights are not read yet.

    Raises UsageError, which names it, for an architecture, key or tensor that is not supported.
    """
    from gguf import GGUFReader

    reader = GGUFReader(path)
    keys = {name: each.contents() for name, each in reader.fields.items()}
    tensors = {each.name: each for each in reader.tensors}
    name = str(keys.get("general.architecture"))
    if (kind := keys.get("general.type", "model")) != "model":
        raise UsageError(f"{path} is a GGUF file of type {kind!r}, not a whole model; merge it into its base model")
    if int(keys.get("split.count", 1)) > 1:
        raise UsageError(f"{path} is one of {keys['split.count']} parts; join them with llama-gguf-split --merge")
    if name not in ARCHITECTURES or name == "mixtral":
        known = ", ".join(each for each in ARCHITECTURES if each != "mixtral")
        raise UsageError(
            f"{path} is of GGUF architecture {name!r}, which is not read; known: {known}; convert it to a folder of safetensors"
        )
    architecture = "mixtral" if name == "llama" and keys.get("llama.expert_count") else name
    file = GgufFile(path, _renamed(keys, name), tensors, ARCHITECTURES[architecture])
    _check_complete(file, architecture)
    return file


def gguf_config(file: GgufFile) -> Any:
    """Return the Hugging Face config of a GGUF file; it has a `quantization_config` if weights are quantized."""
    from transformers import AutoConfig

    keys, tensors, architecture = file.keys, file.tensors, file.architecture
    settings = {field: keys[name] for name, field in {**KEYS, **architecture.keys}.items() if name in keys}
    settings.setdefault("num_key_value_heads", settings.get("num_attention_heads"))
    needed = {**KEYS, **architecture.keys}  # for an absent one transformers would use its own default, such as 8 experts per token
    unstated = [name for name, field in needed.items() if not isinstance(settings.get(field), int | float)]
    if unstated:
        raise UsageError(f"{file.path} does not state one number for {', '.join(unstated)}, as its architecture needs")
    widths = {int(keys[name]) for name in HEAD_WIDTHS if name in keys} or {settings["hidden_size"] // settings["num_attention_heads"]}
    if len(widths) > 1:
        raise UsageError(f"{file.path}: attention heads of different widths ({', '.join(HEAD_WIDTHS)}) are not read")
    biases = {f"{part}_bias": f"blk.0.{name}.bias" in tensors for part, name in (("attention", "attn_q"), ("mlp", "ffn_gate"))}
    config = AutoConfig.for_model(
        architecture.model_type,
        **settings,
        **architecture.fixed,
        **biases,
        head_dim=widths.pop(),
        vocab_size=int(tensors["token_embd.weight"].shape[1]),
        tie_word_embeddings="output.weight" not in tensors,
        rope_parameters=_rotary(file),
        sliding_window=None,
        pad_token_id=None,
        **{name: int(keys[key]) for name, key in TOKENS.items() if key in keys},
    )
    config.name_or_path = str(file.path)
    kinds = _weights_by_type(file)
    if quantized := {kind: count for kind, count in kinds.items() if kind not in FLOATS}:
        config.quantization_config = {"quant_method": GGUF, "level": _level(keys, quantized), "tensor_types": dict(kinds)}
        config.dtype = "float32"
    else:
        config.dtype = {"F16": "float16", "BF16": "bfloat16"}.get(max(kinds, key=lambda kind: kinds[kind]), "float32")
    return config


TOKENS = {"bos_token_id": "tokenizer.ggml.bos_token_id", "eos_token_id": "tokenizer.ggml.eos_token_id"}


def gguf_tensors(file: GgufFile, config: Any, dtype: Any) -> dict[str, Any]:
    """Return the weights under the names that transformers knows, dequantized to a dtype."""
    import numpy as np
    import torch
    from gguf import dequantize

    tensors: dict[str, Any] = {}
    for stored in file.tensors.values():
        if stored.name != FACTORS:
            weight = torch.from_numpy(np.array(dequantize(stored.data, stored.tensor_type), dtype=np.float32)).to(dtype)
            tensors |= _placed(stored.name, weight, file.architecture, config)
    return tensors


def scale_rotary(model: Any, file: GgufFile) -> None:
    """Divide the model's rotary frequencies by the factors of the tensor rope_freqs, where the file has it (Llama 3.1 and later)."""
    import torch
    from gguf import dequantize

    if FACTORS in file.tensors:
        stored, rotary = file.tensors[FACTORS], model.model.rotary_emb
        factors = torch.tensor(dequantize(stored.data, stored.tensor_type)).flatten()
        if factors.shape != rotary.inv_freq.shape or not bool((factors > 0).all() and factors.isfinite().all()):
            raise HedgemarkError(f"{FACTORS} of {file.path} has {len(factors)} factors for {len(rotary.inv_freq)} rotary frequencies")
        rotary.inv_freq = rotary.inv_freq / factors.to(rotary.inv_freq)
        rotary.original_inv_freq = rotary.inv_freq.clone()


def _renamed(keys: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    return {name.removeprefix(f"{architecture}."): value for name, value in keys.items()}


def _check_complete(file: GgufFile, name: str) -> None:
    """Raise UsageError if a key or tensor would be ignored, if rope_freqs and rope.scaling are combined, or vocabulary sizes differ."""
    read = {
        *KEYS,
        *file.architecture.keys,
        *HEAD_WIDTHS,
        "rope.freq_base",
        "general.architecture",
        "general.type",
        *_scaling_keys(file.keys),
    }
    unread = [key for key in file.keys if key not in read and not INFORMATIVE.fullmatch(key)]
    unread = [key for key in unread if not (key.startswith("expert_") and not file.keys[key])]  # written as 0 for models without experts
    if unread:
        raise UsageError(f"{file.path} has {len(unread)} keys that are not read for architecture {name!r}, {unread[0]} among them")
    unplaced = [each for each in file.tensors if each != FACTORS and not _hugging_face_name(each, file.architecture)]
    if unplaced:
        raise UsageError(f"{file.path} has {len(unplaced)} tensors that architecture {name!r} has no use for, {unplaced[0]} among them")
    if FACTORS in file.tensors and _scaling_type(file.keys) != "none":
        raise UsageError(f"{file.path} has both {FACTORS} and rope.scaling keys, which are not read together")
    vocabulary, rows = (
        file.keys.get("vocab_size"),
        int(file.tensors["token_embd.weight"].shape[1]) if "token_embd.weight" in file.tensors else 0,
    )
    if not rows or (vocabulary is not None and int(vocabulary) != rows):
        raise UsageError(f"{file.path} says {vocabulary} tokens, and its embedding has {rows}")


def _scaling_type(keys: Mapping[str, Any]) -> str:
    return str(keys.get("rope.scaling.type", "linear" if {"rope.scaling.factor", "rope.scale_linear"} & keys.keys() else "none"))


def _scaling_keys(keys: Mapping[str, Any]) -> list[str]:
    """Return the rotary keys that are supported for the file's type of scaling; none if the type is unknown."""
    kind = _scaling_type(keys)
    names = {"linear": ["factor"], "yarn": [*YARN], "none": ["factor", "original_context_length"]}.get(kind)
    if names is None:
        return []
    # With the value 1 these have no effect; transformers computes the same magnitude from the factor of yarn.
    neutral = [name for name in ("attn_factor", "yarn_attn_factor", "yarn_ext_factor") if float(keys.get(f"rope.scaling.{name}", 1)) == 1]
    return ["rope.scaling.type", "rope.scale_linear", *(f"rope.scaling.{name}" for name in [*names, *neutral])]


def _rotary(file: GgufFile) -> dict[str, Any]:
    keys, kind = file.keys, _scaling_type(file.keys)
    rope: dict[str, Any] = {"rope_theta": float(keys.get("rope.freq_base", 10000.0)), "rope_type": "default" if kind == "none" else kind}
    factor = float(keys.get("rope.scaling.factor", keys.get("rope.scale_linear", 0)))
    if kind == "none":
        return rope
    if not (math.isfinite(factor) and factor > 0):
        raise UsageError(f"{file.path} scales rotary embeddings ({kind}) and states no factor")
    if kind == "yarn":
        rope |= {field: keys[f"rope.scaling.{name}"] for name, field in YARN.items() if f"rope.scaling.{name}" in keys}
        rope.setdefault("original_max_position_embeddings", keys.get("context_length"))
    return rope | {"factor": factor}


def _hugging_face_name(name: str, architecture: Architecture) -> str:
    """Return the name of a tensor in transformers, with {} for the expert's number if it holds all experts; "" if unknown."""
    if name in EMBEDDING:
        return EMBEDDING[name]
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if match is None or match[2] not in architecture.layers:
        return ""
    return f"model.layers.{match[1]}.{architecture.layers[match[2]]}.{match[3]}"


def _placed(name: str, weight: Any, architecture: Architecture, config: Any) -> dict[str, Any]:
    placed = _hugging_face_name(name, architecture)
    if "{}" in placed:
        return {placed.format(number): expert for number, expert in enumerate(weight)}
    if architecture.pairs and re.search(r"\.attn_[qk]\.", name):
        heads = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
        weight = weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)
    if name.endswith("ffn_gate_inp_shexp.weight"):
        weight = weight.reshape(1, -1)
    return {placed: weight.contiguous()}


def _weights_by_type(file: GgufFile) -> Counter[str]:
    counts: Counter[str] = Counter()
    for tensor in file.tensors.values():
        counts[tensor.tensor_type.name] += int(tensor.n_elements)
    return counts


def _level(keys: Mapping[str, Any], quantized: Mapping[str, int]) -> str:
    """Return the name of the mixture, such as Q4_K_M, if the file's label agrees with its tensors, else the type of most weights."""
    from gguf import LlamaFileType

    most = max(quantized, key=lambda kind: quantized[kind])
    try:
        named = LlamaFileType(int(keys["general.file_type"])).name.removeprefix("MOSTLY_")
    except (KeyError, ValueError):
        return most
    return named if any(named.startswith(kind) for kind in quantized) else most
