"""How the weights of a checkpoint are stored; only this module reads `quantization_config`.

In: a Hugging Face config.  Out: the format's name, its settings, and the level that they amount to, such as w4a16-g128 or FP8_BLOCK.
Older checkpoints and NVIDIA's keep the settings in a file of their own beside a config.json that says nothing; `complete_config` adds them.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from producer.models import auto_round, modelopt_weights
from schemas.errors import UsageError
from schemas.levels import FULL_BITS, NO_LEVEL

GPTQ, AWQ, COMPRESSED_TENSORS, GGUF, FP8, FBGEMM, MODELOPT = "gptq", "awq", "compressed-tensors", "gguf", "fp8", "fbgemm_fp8", "modelopt"
BITSANDBYTES, HQQ = "bitsandbytes", "hqq"
MIXED = "mixed"  # layers of different kinds, so that no single number says how strongly the model is compressed
FILES = {"hf_quant_config.json": MODELOPT, "quantize_config.json": GPTQ, "quant_config.json": AWQ}
# Settings that decide what packed weights mean, under the one or two names that writers give them.
DECIDING = (
    ("quant_method",), ("bits", "w_bit"), ("group_size", "q_group_size"), ("sym",), ("desc_act",), ("checkpoint_format", "format"),
    ("version",), ("zero_point",), ("quant_algo",), ("kv_cache_quant_algo",), ("weight_block_size",), ("dynamic",),
)  # fmt: skip


class Quantization(NamedTuple):
    """The name of the format that weights are quantized in, "" for plain weights, and the settings beside it.

    writer : the library whose name the checkpoint has where its layers lie in the format of another, "" elsewhere.
    """

    format: str
    settings: Mapping[str, Any]
    writer: str = ""


def stored_dtype(config: Any) -> str:
    """Return the dtype that a config names for the weights, such as bfloat16; float32 if it names none."""
    return str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")


def quantization(config: Any) -> Quantization:
    """Return what a config says of how its weights are quantized. Raises UsageError for settings that are no table."""
    stored = getattr(config, "quantization_config", None) or {}
    settings = stored if isinstance(stored, Mapping) else stored.to_dict() if hasattr(stored, "to_dict") else None
    if settings is None:
        raise UsageError(f"quantization_config is {stored!r}, not a table of settings")
    name = settings.get("quant_method") or ""
    name = str(getattr(name, "value", name))
    if name == auto_round.NAME and not auto_round.unreadable(settings):
        return Quantization(*auto_round.in_settings_of(settings), writer=name)
    if name == MODELOPT and modelopt_weights.is_nvfp4(settings):
        return Quantization(COMPRESSED_TENSORS, modelopt_weights.as_compressed(settings), writer=name)
    return Quantization(name, settings)


def add_settings(config: Any, more: Mapping[str, Any]) -> None:
    """Add quantization settings that the files show and the config leaves out."""
    config.quantization_config = {**config.quantization_config, **more}


def complete_config(config: Any, folder: Path) -> None:
    """Give a config the quantization settings that lie in a file beside it, where it has none itself.

    Raises UsageError for files that contradict the config or each other: other programs read another of them first.
    """
    stated = quantization(config).settings
    source = "config.json"
    for path in (folder / name for name in FILES if (folder / name).is_file()):
        settings = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise UsageError(f"{path} is no table of settings")
        settings = {"quant_method": FILES[path.name], **settings.pop("quantization", {}), **settings}
        if unlike := next(_unlike(stated, settings), None):
            name, one, other = unlike
            raise UsageError(f"{name} is {one!r} in {source} and {other!r} in {path.name} of {folder}; correct or remove one of them")
        stated, source = (stated, source) if stated else (settings, path.name)
    if stated and not getattr(config, "quantization_config", None):
        config.quantization_config = stated


def settings_file(folder: Path) -> Path | None:
    """Return the file of quantization settings in a folder, which counts where the config has none; None if there is no such file."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def names_exceptions(settings: Mapping[str, Any]) -> bool:
    """Return whether GPTQ or AWQ settings name layers that are quantized in another way than the rest."""
    return bool(settings.get("dynamic") or settings.get("extra_config"))


def layer_settings(stored: Quantization, layer: str) -> Mapping[str, Any] | None:
    """Return the settings that hold for one layer; None where writers name exceptions by rules that are not followed here."""
    if stored.writer == auto_round.NAME:
        return {**stored.settings, **auto_round.exception_of(stored.settings, layer)}
    return None if names_exceptions(stored.settings) else stored.settings


def hqq_params(settings: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Return how HQQ quantized layers, by the kind of layer, such as self_attn.q_proj; under "" where all are quantized alike.

    Empty where the settings do not say so, or say that scales or zero points are quantized again.
    """
    stated = settings.get("quant_config")
    kinds = {"": stated} if isinstance(stated, Mapping) and "weight_quant_params" in stated else stated
    if not isinstance(kinds, Mapping) or not all(isinstance(kind, Mapping) for kind in kinds.values()):
        return {}
    params = {str(name): kind.get("weight_quant_params") for name, kind in kinds.items()}
    again = any(kind.get("scale_quant_params") or kind.get("zero_quant_params") for kind in kinds.values())
    found = {name: each for name, each in params.items() if isinstance(each, Mapping)}
    return {} if again or len(found) < len(params) else found


def stored_level(config: Any) -> str:
    """Return the level that a checkpoint is at, as text: "-" for plain weights, "mixed" where layers differ."""
    name, settings, writer = quantization(config)
    if not name:
        return NO_LEVEL
    if name in (GPTQ, AWQ):
        bits, group = settings.get("bits", settings.get("w_bit", 4)), settings.get("group_size", settings.get("q_group_size"))
        mixed = auto_round.is_mixed(settings) if writer == auto_round.NAME else names_exceptions(settings)
        return MIXED if mixed else _integer_level(bits, FULL_BITS, group)
    if name == HQQ:
        found = {_hqq_level(each.get("nbits"), each.get("group_size")) for each in hqq_params(settings).values()}
        return found.pop() if len(found) == 1 else MIXED
    if name == COMPRESSED_TENSORS:
        return _compressed_level(settings)
    levels = {
        FP8: "FP8_BLOCK" if settings.get("weight_block_size") else "FP8",
        MODELOPT: str(settings.get("quant_algo") or NO_LEVEL).upper(),
        BITSANDBYTES: "int8" if settings.get("load_in_8bit") else settings.get("bnb_4bit_quant_type", "fp4"),
        GGUF: settings.get("level", name),
    }
    return str(levels.get(name, name))


def not_simulated(config: Any, *, rounds_inputs: bool) -> list[str]:
    """Return what kernels that serve this checkpoint do besides using its weights, and a run of the dequantized weights leaves out.

    rounds_inputs : whether the model that was loaded rounds the inputs of its layers, as it does where the files hold scales for them, and
                    wherever compressed-tensors says so.
    """
    name, settings, _ = quantization(config)
    algorithm = str(settings.get("quant_algo")).upper()
    inputs = (name == FP8 and settings.get("activation_scheme")) or name == FBGEMM or (name == MODELOPT and not algorithm.endswith("_WO"))
    inputs = inputs or (name == BITSANDBYTES and settings.get("load_in_8bit"))
    cache = settings.get("kv_cache_scheme") or settings.get("kv_cache_quant_algo")
    return ["rounding of activations"] * bool(inputs and not rounds_inputs) + ["rounding of the key/value cache"] * bool(cache)


def _unlike(stated: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name and both values of each deciding setting that two tables state differently; capitals do not count."""
    for names in DECIDING:
        one, two = (next((table[name] for name in names if table.get(name) is not None), None) for table in (stated, other))
        if one is not None and two is not None and str(one).lower() != str(two).lower():
            yield names[0], one, two


def _compressed_level(settings: Mapping[str, Any]) -> str:
    groups = [group for group in dict(settings.get("config_groups") or {}).values() if isinstance(group, Mapping) and group.get("weights")]
    names = {_scheme_level(group["weights"], group.get("input_activations")) for group in groups}
    sparsity = dict(settings.get("sparsity_config") or {}).get("sparsity_structure", "")
    if not names and sparsity == "2:4":
        return "2:4"
    return names.pop() if len(names) == 1 and sparsity in ("", "unstructured") else MIXED if names else NO_LEVEL


def _scheme_level(weights: Mapping[str, Any], inputs: Mapping[str, Any] | None) -> str:
    """Return one scheme's level: w4a16-g128 for integers, and the names that llm-compressor gives its schemes for floats."""
    bits, strategy, group = weights.get("num_bits", 8), str(weights.get("strategy")), weights.get("group_size")
    input_bits = (inputs or {}).get("num_bits", FULL_BITS)
    if weights.get("type", "int") == "int":
        return _integer_level(bits, input_bits, group if strategy == "group" else None)
    if bits == 8 and strategy != "group":
        kind = "_BLOCK" if strategy == "block" else "_DYNAMIC" if inputs and inputs.get("dynamic") else "" if inputs else "A16"
        return f"FP8{kind}"
    return f"{'MXFP' if group == 32 else 'NVFP'}{bits}" + ("" if inputs else "A16")


def _hqq_level(bits: Any, group: Any) -> str:
    return f"1bit-g{group}" if bits == 1 else _integer_level(bits, FULL_BITS, group)  # levels such as w4a16 begin at two bits


def _integer_level(bits: Any, input_bits: Any, group: Any) -> str:
    return f"w{bits}a{input_bits}" + (f"-g{group}" if isinstance(group, int) and group > 0 else "")
