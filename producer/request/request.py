"""All options of one `produce` command as one value, checked against each other but not yet looked up.

In: options by parameter name, from the command line, from a block of a sweep file, or both.  Out: `Request`.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from producer.engine.settings import Settings
from schemas.errors import UsageError
from schemas.known_names import known
from schemas.run import CHECKPOINT
from store.format.item_file import SUFFIXES

TRANSFORMERS, VLLM, SERVER = "--backend transformers", "--backend vllm", "--backend server"
SERVED_AS = "as served"  # the dtype of a model behind an address, which nobody knows
NEEDS = {
    "executor": "--plan",
    "workers": "--plan",
    "only": "--plan",
    **dict.fromkeys(("tensor_parallel", "kv_cache_dtype", "quantization", "lora"), VLLM),
    **dict.fromkeys(("url", "tokenizer", "concurrency", "request_timeout"), SERVER),
    **dict.fromkeys(("chat_turns", "chat_system"), "--chat"),
    **dict.fromkeys(("device", "batch_tokens", "device_memory", "host_memory", "self_check", "text"), TRANSFORMERS),
    **dict.fromkeys(("caches", "chosen", "recipe", "save", "saved_models"), TRANSFORMERS),
}
BESIDE_EMIT = ("executor", "workers", "dry_run")
OTHER_NAMES = {"saved_models": "models", "caches": "kv", "note": "message", "chosen": "set"}
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
SIZES = ("device_memory", "host_memory")


@dataclass(frozen=True)
class Request:
    """Every combination of models, methods, levels, tasks and prompts is one run.

    levels   : as text; empty means each method's default level.
    caches   : formats to which cached keys and values are rounded, for every level once each; empty leaves them as they are.
    chosen   : settings of the methods as NAME=VALUE, see `producer.methods.shared.method_options`.
    tasks    : names or item files; empty means urn and facts for the embedded models, the published tasks for others.
    text     : name or file of a text that every model reads as well, "" for none; with one, tasks are asked only where they are named.
    options_order : number of cyclic orders of each item's options to ask it in; 1 is the items' own only.
    until, looks : policy of the release gate that says when a model is asked no more, and its numbers of items, see `producer.run.until`.
    columns  : which columns of a file, or of a data set of the Hub, have question, choices, answer and so on: "question=stem,answer=key".
    limit    : number of items drawn from each task, 0 for all.
    device, dtype : "auto" means a GPU if there is one, with the checkpoint's own dtype; on a CPU float32.
    compression_data : "auto" means each task's default source.
    chat     : whether prompts are in the tokenizer's chat template; chat_turns, chat_system: see `producer.prompts.chat.Chat`.
    url, tokenizer : address of a server, and the tokenizer of its model; for backend `server`, whose only model needs no name.
    kv_cache_dtype, quantization, lora : see `producer.request.vllm_options`; for backend `vllm`.
    private  : store library versions as the only information about machine and command, and no author.
    note     : why the runs are made, recorded with the store's commits.
    settings : how batches and memory are used; they change logits by rounding only.
    """

    models: tuple[str, ...]
    methods: tuple[str, ...] = ("dense",)
    levels: tuple[str, ...] = ()
    caches: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    text: str = ""
    prompts: tuple[str, ...] = ("base",)
    options_order: int = 1
    limit: int = 0
    until: Path | None = None
    looks: tuple[int, ...] = ()
    data: Path | None = None
    columns: str = ""
    prompt_file: Path | None = None
    backend: str = "transformers"
    url: str = ""
    tokenizer: str = ""
    kv_cache_dtype: str = ""
    quantization: str = ""
    lora: Path | None = None
    device: str = "auto"
    dtype: str = "auto"
    seed: int = 0
    compression_data: str = "auto"
    allow_nonfinite: bool = False
    replace: bool = False
    chat: bool = False
    chat_turns: bool = False
    chat_system: str = ""
    private: bool = False
    note: str = ""
    settings: Settings = field(default_factory=Settings)

    @property
    def asks_anew(self) -> bool:
        """Whether every question is asked, also those that stored runs or a command that was cut off have the answer to."""
        return self.settings.fresh or self.replace


def request_of(options: Mapping[str, Any]) -> Request:
    """Return the request for these options. Raises UsageError for an option that has no effect beside the others."""
    _check_no_empty_name(options)
    _check_effect(options)
    _check_sweep(options)
    options = _with_recipe(_check_server(options))
    read: dict[str, float] = {name: _size(name, options[name]) for name in SIZES if name in options}
    if "checkpoint_every" in options:
        read["checkpoint_every"] = parse_duration(options["checkpoint_every"])
    settings = Settings(**{**_fields(Settings, options), **read})
    return Request(**_fields(Request, options), settings=settings)


def parse_duration(text: str) -> float:
    """Return the seconds of a time such as 30s, 10m, 2h or 600. Raises UsageError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip(), re.IGNORECASE)
    if not match:
        raise UsageError(f"{text!r:.80} is not a time; examples: 30s, 10m, 2h")
    return float(match[1]) * SECONDS[match[2].lower()]


def option_name(parameter: str) -> str:
    """Return the command-line option of a parameter, such as --batch-tokens for batch_tokens."""
    return f"--{OTHER_NAMES.get(parameter, parameter).replace('_', '-')}"


def check_names(kind: str, names: Sequence[str], valid_names: Sequence[str]) -> None:
    """Raise UsageError naming the first unknown name and all known ones."""
    for name in names:
        if name not in valid_names:
            raise UsageError(f"unknown {kind} {name!r}; {known(name, valid_names)}")


def _check_no_empty_name(options: Mapping[str, Any]) -> None:
    """Raise UsageError for an empty name, as an unset shell variable gives; as a path it would mean the working folder."""
    if "columns" in options and not any(task.startswith("hub:") or Path(task).suffix in SUFFIXES for task in options.get("tasks", ())):
        raise UsageError("--columns has no effect without a --task that is a file or hub:DATASET#SPLIT")
    for name in ("models", "methods", "levels", "caches", "tasks", "prompts"):
        if any(not value.strip() for value in options.get(name, ())):
            raise UsageError(f"{option_name(name).removesuffix('s')} is empty; give a name, or leave the option out")


def _check_effect(options: Mapping[str, Any]) -> None:
    values = {"backend": Request.backend, **options}
    for name, need in NEEDS.items():
        needed, _, value = need.removeprefix("--").partition(" ")
        if name in values and (needed not in values or (value and values[needed] != value)):
            raise UsageError(f"{option_name(name)} {values[name]} has no effect without {need}")


def _check_sweep(options: Mapping[str, Any]) -> None:
    for name in BESIDE_EMIT:
        if "emit" in options and name in options:
            raise UsageError(f"{option_name(name)} has no effect beside --emit, which runs nothing")
    if "save" in options and ("plan" in options or "emit" in options):
        raise UsageError("--save writes one model, and a sweep makes many; --models DIR keeps them all")
    number = str(options.get("device", "")).partition("cuda:")[2]
    if number and ("plan" in options or "emit" in options):
        raise UsageError(f"--device cuda:{number} is one device, and a sweep gives each cell its own; set CUDA_VISIBLE_DEVICES={number}")


def _check_server(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options, with the method of a served model unless one is named: checkpoint, since nobody knows its weights."""
    if options.get("backend") != "server":
        return options
    for name in ("url", "tokenizer"):
        if not str(options.get(name, "")).strip():
            raise UsageError(f"{SERVER} needs {option_name(name)}")
    if "checkpoint_every" in options:
        raise UsageError(f"--checkpoint-every has no effect beside {SERVER}: its answers are kept after every few requests")
    for name in ("dtype", "compression_data", "save", "saved_models"):
        if name in options:
            raise UsageError(f"{option_name(name)} has no effect beside {SERVER}: the server decides how its model runs")
    if "plan" in options or "emit" in options:
        raise UsageError(f"{SERVER} is not for sweeps: a server runs one model")
    return {"methods": (CHECKPOINT,), "models": (), **options}


def _with_recipe(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options with a recipe file as the method, the level and the setting that it stands for."""
    if "recipe" not in options:
        return options
    from producer.methods.shared.recipe_file import read_recipe

    path = options["recipe"]
    more = {"methods": "recipe", "levels": read_recipe(path)["name"], "chosen": f"recipe={path}"}
    return {**options, **{name: tuple(dict.fromkeys((*options.get(name, ()), value))) for name, value in more.items()}}


def _size(name: str, text: str) -> int:
    from producer.engine.memory_plan import parse_size

    size = parse_size(text)
    if not size:
        raise UsageError(f"{option_name(name)} {text} leaves no memory at all; leave the option out to use what is free")
    return size


def _fields(kind: type[Request] | type[Settings], options: Mapping[str, Any]) -> dict[str, Any]:
    return {each.name: options[each.name] for each in dataclasses.fields(kind) if each.name in options}
