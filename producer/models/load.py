"""Load the config, tokenizer and weights of a model from its files.

In: `ModelFiles`.  Out: the Hugging Face config and tokenizer, and a model object whose weights are plain numbers on one device.
Python code in a model's folder is never run. Every tensor of the files must be in the model and every tensor of the model in the files;
tensors that a library would leave out or initialize at random are an error.
"""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from producer.machine.free_memory import out_of_memory
from producer.models.find import ADAPTERS, ModelFiles, weight_files
from producer.models.gguf_file import gguf_config, gguf_tensors, open_gguf, scale_rotary
from producer.models.gguf_tokenizer import gguf_tokenizer
from producer.models.model_class import model_class
from producer.models.packed import UNPACK, load_compressed, load_packed, load_tensors, read_tensors
from producer.models.shards import check_shards
from producer.models.stored_as import COMPRESSED_TENSORS, complete_config, quantization
from producer.models.tokenizer_folder import read_tokenizer
from schemas.errors import HedgemarkError, UsageError

AS_STORED = "auto"  # the dtype of the files: the weights then are views of memory-mapped files and take no memory of their own
COUNT = re.compile(r"(?:^|_)(layer|block|expert)s?$")  # fields of a config, such as num_hidden_layers, n_layer and num_local_experts
MOST = {"layer": 1_000, "block": 1_000, "expert": 10_000}
ROTARY = "rotary_emb.inv_freq"  # written by older versions of transformers, and left out by newer ones without a word


def load_config(files: ModelFiles) -> Any:
    """Return the Hugging Face config. Raises UsageError for one that cannot be read, needs Python code of its own or is an adapter's."""
    from transformers import AutoConfig

    adapters = [name for name in ADAPTERS if (files.folder / name).is_file()]
    if adapters and not files.gguf:
        raise UsageError(f"{files.folder} holds an adapter ({adapters[0]}), not a whole model; merge it into its base model and save that")
    with _readable("config", files, UsageError):
        if files.gguf:
            config = gguf_config(open_gguf(files.folder / files.gguf))
        else:
            _check_rotary(files.folder)
            config = AutoConfig.from_pretrained(files.folder, trust_remote_code=False)
            complete_config(config, files.folder)
        _check_counts(config.to_dict())
        return config


def _check_rotary(folder: Path) -> None:
    """Raise UsageError for a config.json that states rotary settings twice, older (rope_theta, rope_scaling) and newer, and differently."""
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    newer = settings.get("rope_parameters") if isinstance(settings, dict) else None
    if not isinstance(newer, dict) or any(isinstance(value, dict) for value in newer.values()):
        return  # none, or one table for each type of layers
    older = {"rope_theta": settings["rope_theta"]} if settings.get("rope_theta") is not None else {}
    older |= scaling if isinstance(scaling := settings.get("rope_scaling"), dict) else {}
    older["rope_type"] = older.get("rope_type", older.pop("type", newer.get("rope_type")))
    for name, value in older.items():
        if newer.get(name) is not None and newer[name] != value:
            raise UsageError(f"config.json says {name} {value} and, in rope_parameters, {newer[name]}; correct or remove one of them")


def _check_counts(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for more layers or experts than any model has: transformers would build them one by one, for hours."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            _check_counts(value)
        elif isinstance(name, str) and isinstance(value, int) and (match := COUNT.search(name)) and value > MOST[match[1]]:
            raise ValueError(f"{name} is {str(value)[:40]}; no model has more than {MOST[match[1]]:,}")


def load_tokenizer(files: ModelFiles) -> Any:
    """Return the tokenizer. Raises UsageError where there is none, or it cannot be read or needs Python code of its own."""
    if files.gguf:
        with _readable("tokenizer", files, UsageError):
            return gguf_tokenizer(open_gguf(files.folder / files.gguf))
    with _readable("tokenizer (tokenizer.json or tokenizer.model)", files, UsageError):
        return read_tokenizer(files.folder)


def attention(config: Any) -> str | None:
    """Return the implementation of attention to ask for: None is SDPA wherever transformers has it for the model.

    SDPA cannot cap attention scores, and transformers leaves the cap out without a word: Gemma 2 then gives other logits.
    """
    return "eager" if getattr(config.get_text_config(), "attn_logit_softcapping", None) else None


def load_model(files: ModelFiles, dtype: str, device: str) -> Any:
    """Return the model in eval mode, all weights on one device.

    Raises HedgemarkError for weights that are damaged or incomplete, and for tensors that the model has no use for.
    """
    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # one progress bar per command, and that is ours, over items
    config = load_config(files)
    options: dict[str, Any] = {"dtype": dtype if dtype == AS_STORED else getattr(torch, dtype), "attn_implementation": attention(config)}
    options["ignore_mismatched_sizes"] = True  # they are reported then, and refused by `_check_report` with a sentence that names them
    with _readable("weights", files, HedgemarkError):
        plain = not quantization(config).format
        if not files.gguf:
            check_shards(weight_files(files.folder))
        model, report = _load(files, config, **options)
        _check_report(files, report)
        if not files.gguf:
            _check_stored_numbers(files, model, plain=plain)
    return model.requires_grad_(False).to(device)


def _load(files: ModelFiles, config: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    if (name := quantization(config).format) in UNPACK:
        return load_packed(weight_files(files.folder), config, **options)
    if name == COMPRESSED_TENSORS:
        return load_compressed(weight_files(files.folder), config, **options)
    if files.gguf:
        return _load_gguf(files, config, **options)
    loaded: Any = model_class(config).from_pretrained(
        files.folder, config=config, trust_remote_code=False, output_loading_info=True, **options
    )
    return loaded


def _load_gguf(files: ModelFiles, config: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    import torch

    file = open_gguf(files.folder / files.gguf)
    if options["dtype"] == AS_STORED:
        options["dtype"] = config.dtype if isinstance(config.dtype, torch.dtype) else getattr(torch, config.dtype)
    model, report = load_tensors(gguf_tensors(file, config, options["dtype"]), config, **options)
    scale_rotary(model, file)
    return model, report


def _check_report(files: ModelFiles, report: dict[str, Any]) -> None:
    """Raise HedgemarkError for tensors that transformers would draw at random, or would leave out."""
    for name, stored, expected in sorted(report["mismatched_keys"]):
        raise HedgemarkError(
            f"tensor {name} of {files.name!r} in {files.folder} has shape {tuple(stored)}, and its config describes one of "
            f"{tuple(expected)}; the weights and the config belong to different models, or one was changed without the other"
        )
    if missing := sorted(report["missing_keys"]):
        raise HedgemarkError(f"the weights of {files.name!r} in {files.folder} lack {len(missing)} of its tensors, {missing[0]} among them")
    if unexpected := sorted(report["unexpected_keys"]):
        adapter = " (an adapter that is not merged into the weights)" if any("lora" in name.lower() for name in unexpected) else ""
        raise HedgemarkError(
            f"the weights of {files.name!r} in {files.folder} have {len(unexpected)} tensors that a model of its config has no use "
            f"for, {unexpected[0]} among them{adapter}; without them it would be another model"
        )


def _check_stored_numbers(files: ModelFiles, model: Any, *, plain: bool) -> None:
    """Raise HedgemarkError for weights stored as bare integers or eight-bit floats, and for rotary frequencies other than the config's."""
    for name, tensor in _peculiar_tensors(files):
        if plain and name.endswith(".weight"):
            raise HedgemarkError(
                f"tensor {name} of {files.name!r} is stored as {str(tensor.dtype).removeprefix('torch.')}, and the config does not say how "
                "weights are quantized (quantization_config)"
            )
        if name.endswith(ROTARY) and not _same_frequencies(tensor, model):
            raise HedgemarkError(f"tensor {name} of {files.name!r} holds other rotary frequencies than its config says")


def _peculiar_tensors(files: ModelFiles) -> Iterator[tuple[str, Any]]:
    """Yield the stored tensors that are integers, eight-bit floats or rotary frequencies; of other safetensors only the header is read."""
    from safetensors import safe_open

    for path in weight_files(files.folder):
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118  # no mapping
                    if name.endswith(ROTARY) or tensors.get_slice(name).get_dtype() not in ("F64", "F32", "F16", "BF16"):
                        yield name, tensors.get_tensor(name)
        else:
            for name, tensor in read_tensors([path]).items():
                if name.endswith(ROTARY) or not tensor.is_floating_point() or tensor.itemsize < 2:
                    yield name, tensor


def _same_frequencies(stored: Any, model: Any) -> bool:
    import torch

    rounding = max(1e-5, 2 * torch.finfo(stored.dtype).eps)
    used = [buffer.cpu().float() for name, buffer in model.named_buffers() if name.endswith(ROTARY)]
    return any(each.shape == stored.shape and torch.allclose(each, stored.float(), rtol=rounding, atol=0) for each in used)


@contextmanager
def _readable(what: str, files: ModelFiles, kind: type[HedgemarkError]) -> Iterator[None]:
    """Turn what libraries raise for a damaged file, which may be anything, into one sentence; lack of memory stays what it is."""
    try:
        yield
    except HedgemarkError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...")
        if _brings_code(files):
            reason = "it needs Python code that comes with it, and such code is never run; save the model for a class that transformers has"
        raise kind(f"the {what} of {files.name!r} in {files.folder} cannot be read ({reason})") from error


def _brings_code(files: ModelFiles) -> bool:
    """Whether the config or tokenizer names classes in Python files beside it."""
    for name in ("config.json", "tokenizer_config.json"):
        try:
            settings = json.loads((files.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(settings, dict) and "auto_map" in settings:
            return True
    return False
