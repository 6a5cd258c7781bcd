"""Write a compressed model as a checkpoint folder that transformers and vLLM load, and restore it as it was in memory.

In: a compressed model with its method and level, the dense model's files.  Out: config, weights, tokenizer; or the model again. What cannot
be saved is refused before any work is done.
Pruned weights are stored as plain numbers with zeros, which is what compressed-tensors has for them since it gave up its sparse formats.
"""

import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import Any

from producer.engine.settings import Settings
from producer.methods import Method
from producer.methods.shared.linear_layers import target_layers
from producer.methods.shared.make_linear import make_linear
from producer.methods.shared.quantization import RoundInput
from producer.models.compressed_weights import round_expert_inputs, unpack_modules
from producer.models.find import ModelFiles, find_model, weight_files
from producer.models.load import load_config, load_model
from producer.models.model_class import IMAGES_AND_TEXT
from producer.models.stored_as import quantization
from producer.request.planned import RunGroup
from producer.saved.packing import Packing, packed_tensors, rounds_integers
from schemas.errors import UsageError
from schemas.levels import Level

log = logging.getLogger(__name__)
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "chat_template.jinja", "chat_template.json", "generation_config.json",
)  # fmt: skip
# Types with experts in one tensor whose experts transformers finds in files under the names that they have as linear layers.
SAVED_EXPERTS = ("qwen2_moe", "qwen3_moe", "olmoe", "glm4_moe", "dots1", "deepseek_v3", "ernie4_5_moe", "flex_olmo", "qwen3_next")
SHARD = "5GB"


def check_saving(groups: Sequence[RunGroup], settings: Settings) -> None:
    """Raise UsageError if --save cannot write the request's compressed model: none or several, one that cannot be saved, a folder in use.

    A model that --models cannot keep is named on stderr, and compressed again each time.
    """
    compressed = [group for group in groups if not group.is_dense]
    if settings.save is not None:
        models = [(group, level) for group in compressed for level in group.levels]
        if len(models) != 1:
            raise UsageError(f"--save writes one compressed model, and this request makes {len(models)}; --models DIR keeps any number")
        if reason := unsavable(models[0][0].method, models[0][0].model.config, models[0][0].levels):
            raise UsageError(f"what method {models[0][0].method.name!r} makes cannot be saved as a checkpoint: {reason}")
        if not models[0][0].runs:
            raise UsageError("--save compares the model that it wrote with the one in memory on questions; name some with --task")
        if settings.save.exists() and any(settings.save.iterdir()):
            raise UsageError(f"the folder {settings.save} of --save is not empty; name one that does not exist yet")
    for group in compressed if settings.saved_models else ():
        unasked = "" if group.runs else "no question is asked of it"
        if reason := unasked or unsavable(group.method, group.model.config, group.levels):
            log.warning("%s by %s is not kept among the saved models: %s", group.model.files.name, group.method.name, reason)


def unsavable(method: Method, config: Any, levels: Sequence[Level]) -> str:
    """Return why what a method makes of a model cannot be saved as a checkpoint without changing it, or ""; needs no weights.

    levels : the levels to be saved.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if any(method.cache_of(level) for level in levels):
        return "a checkpoint holds no cached keys and values"
    if method.unsavable or not method.changes:
        return method.unsavable or "it compresses nothing"
    if config.model_type in IMAGES_AND_TEXT:
        return "only the half of a model of images and text that answers text is compressed, and no checkpoint is written of a half"
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    kinds = {type(module).__name__ for module in model.modules()}
    if other := kinds & {"Conv1D", "FalconLinear"}:
        return f"layers of class {other.pop()} have no place in a compressed checkpoint"
    fused = any(getattr(parameter, "ndim", 0) == 3 for parameter in model.parameters())
    if fused and config.model_type not in SAVED_EXPERTS:
        return f"the experts of type {config.model_type!r} have other names in a checkpoint than as linear layers"
    return ""


def write_model(model: Any, packing: Packing, files: ModelFiles, tokenizer: Any, folder: Path) -> None:
    """Write config, weights and tokenizer into a folder.

    The dtype of everything that is not packed is that of the model. Raises OSError where there is no room.
    """
    from huggingface_hub import save_torch_state_dict

    config = deepcopy(model.config)
    config.dtype = model.dtype
    if packing.groups:
        config.quantization_config = packing.settings()
    config.save_pretrained(folder)
    save_torch_state_dict(packed_tensors(model, packing), folder, max_shard_size=SHARD)
    for weights in folder.glob("*.safetensors"):  # safetensors makes files that their owner alone can read, whatever the umask
        shutil.copymode(folder / "config.json", weights)
    if files.gguf:
        tokenizer.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if not files.gguf and (files.folder / name).is_file():
            shutil.copyfile(files.folder / name, folder / name)


def restore(folder: Path, level: Level, dtype: str, device: str) -> Any:
    """Return a saved model as its method made it: its activations are rounded as the method rounds them."""
    return as_made(load_checkpoint(folder, dtype, device), level)


def load_checkpoint(folder: Path, dtype: str, device: str) -> Any:
    """Return a saved model as anybody loads it: its activations are rounded as compressed-tensors rounds them."""
    return round_expert_inputs(load_model(find_model(str(folder)), dtype, device), make_linear).eval()


def as_made(model: Any, level: Level) -> Any:
    """Return a model that was loaded from a checkpoint with a linear layer for every matrix, rounding activations as its method does."""
    model = make_linear(model)
    if rounds_integers(level):
        for layer in target_layers(model).values():  # the checkpoint's own rounding has steps of max|x| / 127.5, ours of max|x| / 127
            layer._forward_pre_hooks.clear()
            layer.register_forward_pre_hook(RoundInput(level.activation_bits))
    return model


def stored_weights(folder: Path, names: Iterable[str], dtype: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name and the weight of each named layer as a checkpoint's files hold it, dequantized; one layer is in memory at a time."""
    from safetensors import safe_open

    stored = quantization(load_config(find_model(str(folder))))
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(path, framework="pt")) for path in weight_files(folder)]
        parts_of: dict[str, dict[str, Any]] = {}
        for file in files:
            for full in file.keys():  # noqa: SIM118  # no mapping
                module, _, part = full.rpartition(".")
                parts_of.setdefault(module, {})[part] = file
        for name in names:
            parts = {part: file.get_tensor(f"{name}.{part}") for part, file in parts_of[name].items()}
            if "weight_scale" in parts:
                parts.pop("bias", None)
                ((_, weight),) = unpack_modules({name: parts}, stored, dtype)
            else:
                weight = parts["weight"].to(dtype)
            yield name, weight
