"""Models by name: where their files lie, their config, tokenizer and weights.

In: an alias, a Hub id, or a local folder or .gguf file.  Out: `ModelFiles`, and from it config, tokenizer and model object.
Nothing is downloaded before it is needed, and config and tokenizer are needed (and checked) before weights.
"""

import logging
import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producer.machine.free_memory import out_of_memory
from producer.models.packed import load_packed, packed_format, settle_compressed, stored_by_compressed_tensors
from producer.models.weight_files import wanted_files, weight_files
from schemas.errors import HedgemarkError, UsageError

log = logging.getLogger(__name__)

REFERENCE_MODELS = Path(__file__).parents[1] / "reference" / "models"
REFERENCE = ("ref-s", "ref-m", "ref-l", "ref-moe")
SMOLLM2 = "smollm2-135m"
HUB = {
    "llama2-7b": "meta-llama/Llama-2-7b-hf",
    "llama2-13b": "meta-llama/Llama-2-13b-hf",
    "llama2-70b": "meta-llama/Llama-2-70b-hf",
    "llama3.1-8b": "meta-llama/Llama-3.1-8B",
    "llama3.1-70b": "meta-llama/Llama-3.1-70B",
    "llama3.2-1b": "meta-llama/Llama-3.2-1B",
    "llama3.2-3b": "meta-llama/Llama-3.2-3B",
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "qwen3-1.7b": "Qwen/Qwen3-1.7B",
    "qwen3-4b": "Qwen/Qwen3-4B",
    "qwen3-8b": "Qwen/Qwen3-8B",
    "qwen3-14b": "Qwen/Qwen3-14B",
    "qwen3-32b": "Qwen/Qwen3-32B",
    "qwen3-30b-a3b": "Qwen/Qwen3-30B-A3B",
    SMOLLM2: "HuggingFaceTB/SmolLM2-135M-Instruct",
    "smollm2-360m": "HuggingFaceTB/SmolLM2-360M-Instruct",
    "smollm2-1.7b": "HuggingFaceTB/SmolLM2-1.7B-Instruct",
}
SMALL_FILES = ["*.json", "*.model", "*.txt", "*.jinja"]
AS_STORED = "auto"  # the dtype of the files: the weights then are views of memory-mapped files and take no memory of their own


@dataclass(frozen=True)
class ModelFiles:
    """A model on this machine: the name in the run key, its folder, its GGUF file if it is one, its Hub commit."""

    name: str
    folder: Path
    gguf: str = ""
    hub_id: str = ""
    revision: str = ""


def find_model(name: str) -> ModelFiles:
    """Return the files of a model; for a Hub model config and tokenizer only, the weights follow with `fetch_weights`.

    Raises UsageError for a name that is neither alias, Hub id, folder nor GGUF file; HedgemarkError where the Hub has no answer.
    """
    if name in REFERENCE:
        return _reference(name)
    path = Path(name).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return ModelFiles(path.stem, path.parent, gguf=path.name)
    if (path / "config.json").is_file():
        return ModelFiles(path.resolve().name, path)
    if name == SMOLLM2:
        from producer.models.smollm2 import from_wheel

        if (folder := from_wheel()) is not None:
            return ModelFiles(name, folder)
    if name not in HUB and (path.exists() or name.count("/") != 1 or name.startswith((".", "/", "~"))):
        raise UsageError(
            f"unknown model {name!r}; known: bayes, {', '.join([*REFERENCE, *HUB])}; "
            "also any Hub id (owner/name), a folder with a config.json, or a .gguf file"
        )
    folder = _download(HUB.get(name, name), SMALL_FILES)
    return ModelFiles(name, folder, hub_id=HUB.get(name, name), revision=folder.name)


def fetch_weights(files: ModelFiles) -> ModelFiles:
    """Return the same model with its weights on this machine, each once where the Hub has them in several forms."""
    if files.hub_id:
        for names in wanted_files(files.folder):
            _download(files.hub_id, SMALL_FILES + names, files.revision)
            if weight_files(files.folder):
                break
    return files


def load_config(files: ModelFiles) -> Any:
    """Return the Hugging Face config. Raises UsageError for one that cannot be read."""
    from transformers import AutoConfig

    with _readable("config", files, UsageError):
        return AutoConfig.from_pretrained(files.folder, **_gguf_argument(files))


def load_tokenizer(files: ModelFiles) -> Any:
    """Return the tokenizer. Raises UsageError where there is none or it cannot be read."""
    from transformers import AutoTokenizer

    with _readable("tokenizer (tokenizer.json or tokenizer.model)", files, UsageError):
        return AutoTokenizer.from_pretrained(files.folder, **_gguf_argument(files))


def load_model(files: ModelFiles, dtype: str, device: str) -> Any:
    """Return the model in eval mode, all weights on one device, attention by SDPA.

    Raises HedgemarkError for weights that are damaged or incomplete, or in a format whose package is not installed.
    """
    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # one progress bar per command, and that is ours, over items
    options: dict[str, Any] = {"dtype": dtype if dtype == AS_STORED else getattr(torch, dtype), "attn_implementation": "sdpa"}
    config = load_config(files)
    with _readable("weights", files, HedgemarkError):
        model, report = load_packed(files.folder, config, **options) if packed_format(config) else _load(files, config, **options)
    if missing := sorted(report["missing_keys"]):  # transformers would draw them at random
        raise HedgemarkError(f"the weights of {files.name!r} in {files.folder} lack {len(missing)} of its tensors, {missing[0]} among them")
    return model.requires_grad_(False).to(device)


def _load(files: ModelFiles, config: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoModelForCausalLM

    stored: Any = getattr(config, "quantization_config", None)
    compressed = stored_by_compressed_tensors(config)
    if compressed:
        config.quantization_config = {**stored, "dequantize": True}  # or the model's first whole forward pass would; the engine runs layers
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        files.folder, config=config, output_loading_info=True, **options, **_gguf_argument(files)
    )
    model, report = loaded
    if compressed:
        settle_compressed(model)
        model.config.quantization_config = stored  # what it was stored as is recorded with the run
    return model, report


@contextmanager
def _readable(what: str, files: ModelFiles, kind: type[HedgemarkError]) -> Iterator[None]:
    """Within it any error but ours and memory's becomes one of this kind, in a sentence: libraries raise all kinds for a damaged file."""
    try:
        yield
    except HedgemarkError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...")
        raise kind(f"the {what} of {files.name!r} in {files.folder} cannot be read ({reason})") from error


def _reference(name: str) -> ModelFiles:
    folder = REFERENCE_MODELS / name
    if not (folder / "model.safetensors").is_file():
        raise HedgemarkError(f"the weights of {name!r} are not in {folder}; make them with: python -m producer.reference.train {name}")
    return ModelFiles(name, folder)


def _download(hub_id: str, patterns: list[str], revision: str | None = None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise HedgemarkError(
            f"cannot get model {hub_id!r} from the Hub ({reason}); download it elsewhere and give its folder as --model, "
            f"or set HF_TOKEN if it is gated{' (HF_HUB_OFFLINE is set)' if os.environ.get('HF_HUB_OFFLINE') else ''}"
        ) from error


def _gguf_argument(files: ModelFiles) -> dict[str, str]:
    return {"gguf_file": files.gguf} if files.gguf else {}
