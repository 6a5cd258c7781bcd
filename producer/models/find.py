"""Find the files of a model by its name, and determine which of them are the weights.

In: a name from the list, a Hub id, or a local folder or .gguf file.  Out: `ModelFiles`.
Config and tokenizer come first (and are checked first); weights are downloaded only when they are needed.
A repository may hold its weights twice, `consolidated.safetensors` beside `model-*.safetensors`. The order is that of transformers: one
safetensors file, else all that its index names; without either every safetensors file there is; and *.bin where there is none.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from schemas.errors import HedgemarkError, UsageError
from schemas.known_names import known

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
SHARD = "-?????-of-?????"  # before .gguf, where a file is divided
ADAPTER = "adapter_config.json"  # of peft: the folder holds what is to be added to another model's weights
ADAPTERS = (ADAPTER, "adapter_model.safetensors", "adapter_model.bin")
SMALL_FILES = ["*.json", "*.model", "*.txt", "*.jinja"]
KINDS = (("model.safetensors", "*.safetensors"), ("pytorch_model.bin", "*.bin"))
EXPECTED = "model.safetensors, all files of a model.safetensors.index.json, other *.safetensors, or the same as pytorch_model.bin"


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
    if (path / "config.json").is_file() or (path / ADAPTER).is_file():
        return ModelFiles(path.resolve().name, path)
    if name == SMOLLM2:
        from producer.models.smollm2 import from_wheel

        if (folder := from_wheel()) is not None:
            return ModelFiles(name, folder)
    hub_id, _, kind = HUB.get(name, name).partition(":")
    hub_id, _, revision = hub_id.partition("@")
    if name not in HUB and (path.exists() or hub_id.count("/") != 1 or name.startswith((".", "/", "~")) or name.endswith(("@", ":"))):
        if gguf := gguf_inside(path):
            raise UsageError(f"{name} is a folder, and {gguf}")
        if name.startswith((".", "/", "~")) and not path.exists():
            raise UsageError(f"there is no folder or file {name}")
        raise UsageError(
            f"unknown model {name!r}; {known(name, ['bayes', *REFERENCE, *HUB])}; "
            "also any Hub id (owner/name, owner/name@revision or, for a GGUF file, owner/name:Q4_K_M), a folder with a config.json, or a "
            ".gguf file"
        )
    if kind:
        return _gguf_on_hub(name, hub_id, revision or None, kind)
    folder = _download(hub_id, SMALL_FILES, revision or None)
    if not any((folder / file).is_file() for file in ("config.json", ADAPTER)):
        raise UsageError(f"{hub_id} has no config.json on the Hub; if it holds GGUF files, give the type of one as in {hub_id}:Q4_K_M")
    return ModelFiles(name, folder, hub_id=hub_id, revision=folder.name)


def gguf_inside(folder: Path) -> str:
    """Return what to say of a folder that holds GGUF files, each of which is a model of its own; "" for any other path."""
    names = sorted(path.name for path in folder.glob("*.gguf")) if folder.is_dir() else []
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"it holds {len(names)} GGUF files, {', '.join(names[:8])}{more}; give the path of one" if names else ""


def fetch_weights(files: ModelFiles) -> ModelFiles:
    """Return the same model with its weights on this machine, each once where the Hub has them in several forms."""
    if files.hub_id and not files.gguf:
        for names in wanted_files(files.folder):
            _download(files.hub_id, SMALL_FILES + names, files.revision)
            if weight_files(files.folder):
                break
    return files


def weight_files(folder: Path, gguf: str = "") -> list[Path]:
    """Return the weight files in order of name, none where they are not here or one that the index names is missing."""
    for names in [[gguf]] if gguf else wanted_files(folder):
        paths = [path for name in names for path in (folder.glob(name) if "*" in name else [folder / name]) if path.is_file()]
        if len(paths) >= len(names):
            return sorted(paths)
    return []


def wanted_files(folder: Path) -> Iterator[list[str]]:
    """Yield the names or patterns that would be the weights, best first; the index is read when it is their turn."""
    for single, others in KINDS:
        yield [single]
        index = folder / f"{single}.index.json"
        if index.is_file():
            yield _indexed(index)
            return
        yield [others]


def _gguf_on_hub(name: str, hub_id: str, revision: str | None, kind: str) -> ModelFiles:
    """Return the one GGUF file of a type in a repository, downloaded whole, for its config and tokenizer are in it."""
    ends = [f"{spelled}{part}.gguf" for spelled in {kind, kind.upper(), kind.lower()} for part in ("", SHARD)]
    patterns = [f"{start}{end}" for end in ends for start in ("", "*[-._/]")]
    if not kind.replace("_", "").replace("-", "").isalnum():
        raise UsageError(f"{kind!r} in {name!r} is no type of GGUF files, such as Q4_K_M")
    folder = _download(hub_id, SMALL_FILES + patterns, revision)
    present = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.gguf"))
    matching = [each for each in present if any(fnmatchcase(each, pattern) for pattern in patterns)]
    if not matching:
        raise UsageError(f"{hub_id} has no GGUF file whose name ends in {kind}; the part behind the colon is a type, such as Q4_K_M")
    if any(fnmatchcase(each, f"*{SHARD}.gguf") for each in matching):
        raise UsageError(f"{hub_id} has {kind} in {len(matching)} parts, {matching[0]} first; join them with llama-gguf-split --merge")
    if len(matching) > 1:
        raise UsageError(f"{hub_id} has several GGUF files of type {kind}: {', '.join(matching)}; download one and give its path")
    path = folder / matching[0]
    return ModelFiles(name, path.parent, gguf=path.name, hub_id=hub_id, revision=folder.name)


def _reference(name: str) -> ModelFiles:
    folder = REFERENCE_MODELS / name
    if not (folder / "model.safetensors").is_file():
        raise HedgemarkError(f"the weights of {name!r} are not in {folder}; make them with: python -m producer.reference.train {name}")
    return ModelFiles(name, folder)


def _download(hub_id: str, patterns: list[str], revision: str | None = None) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        offline = constants.HF_HUB_OFFLINE  # of itself the library asks for the list of a commit's files even then
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns, local_files_only=offline))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise HedgemarkError(
            f"cannot get model {hub_id!r} from the Hub ({reason}); download it elsewhere and give its folder as --model, "
            f"or set HF_TOKEN if it is gated{' (HF_HUB_OFFLINE is set)' if os.environ.get('HF_HUB_OFFLINE') else ''}"
        ) from error


def _indexed(index: Path) -> list[str]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if not names or any(Path(name).name != name or "*" in name for name in names):
            raise ValueError(names)
        return sorted(names)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HedgemarkError(f"{index} is damaged: it does not name files of its folder as weights") from error
