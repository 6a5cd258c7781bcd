"""Split a sweep into cells. Each cell is one `produce` command for one model, method and level, or for one model with `--until`.

In: requests.  Out: `Command`s with readable names; executors return the outcome of each as `Finished`.

An executor may send the cells of one model to one process, which loads it once where memory allows. What the processes of a machine share
beside: the files of the weights, which the system keeps in free memory, and the statistics of slicegpt and llm-pruner
(`producer.methods.shared.kept_statistics`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from producer.engine.settings import Settings
from producer.methods import METHODS
from producer.request.bayes import BAYES
from producer.request.request import Request, option_name
from producer.run.levels import KV, choose_levels

FAILED_TO_START = 127
SCALARS = (
    "text",
    *("limit", "data", "prompt_file", "backend", "device", "dtype", "seed", "compression_data", "chat_system", "options_order", "columns"),
    *("note", "until", "lora", "kv_cache_dtype", "quantization"),
    *("batch_tokens", "device_memory", "host_memory", "tensor_parallel", "self_check", "saved_models", "checkpoint_every"),
)
FLAGS = ("allow_nonfinite", "private", "replace", "fresh", "chat", "chat_turns")


@dataclass(frozen=True)
class Command:
    """One cell: its name, the arguments of its `produce` command, the number of devices it needs, and the model that it loads."""

    name: str
    arguments: tuple[str, ...]
    devices: int = 1
    model: str = ""


@dataclass(frozen=True)
class Finished:
    """A cell that has ended: its exit code, the names of the runs it wrote, and why it failed if it did."""

    command: Command
    exit_code: int
    runs: tuple[str, ...] = ()
    reason: str = ""


def split(requests: Sequence[Request], store_url: str) -> list[Command]:
    """Return one command per model, method and level of the requests, without repeats; with `--until` one per model."""
    commands = [command for request in requests for command in _commands(request, store_url)]
    return list(dict.fromkeys(commands))


def _commands(request: Request, store_url: str) -> Iterator[Command]:
    shared = tuple(_shared(request, store_url))
    for model in request.models:
        if model == BAYES:
            yield Command(BAYES, ("--model", BAYES, "--method", BAYES, *shared), model=BAYES)
            continue
        if request.until:  # whose compressed models are all compared with one dense model
            methods = (text for name in request.methods for text in ("--method", name))
            levels_given = (text for level in request.levels for text in ("--level", level))
            settings_given = (text for setting in request.chosen for text in ("--set", setting))
            arguments = ("--model", model, *methods, *levels_given, *settings_given, *shared)
            yield Command(model, arguments, request.settings.tensor_parallel, model)
            continue
        for method, levels in choose_levels(request.methods, request.levels, request.caches).items():
            caches = ("",) if method == KV else request.caches or ("",)
            for level, cache in product([level.text for level in levels] or [""], caches):  # no level is the method's default for the model
                method_options = [text for text in request.chosen if text.partition("=")[0].strip() in METHODS[method].options]
                settings = (word for text in method_options for word in ("--set", text))
                chosen = (*(("--level", level) if level else ()), *(("--kv", cache) if cache else ()), *settings)
                name = " ".join(filter(None, (model, method, level, cache and f"kv-{cache}", *method_options)))
                arguments = ("--model", model, "--method", method, *chosen, *shared)
                yield Command(name, arguments, request.settings.tensor_parallel, model)


def _shared(request: Request, store_url: str) -> Iterator[str]:
    """Yield the arguments that all commands of a request share, leaving out options at their default."""
    yield from ("--store", store_url)
    yield from (text for task in request.tasks for text in ("--task", task))
    yield from (text for prompt in request.prompts for text in ("--prompt", prompt))
    for values, defaults in ((request, Request(models=())), (request.settings, Settings())):
        for name in SCALARS:
            if (value := getattr(values, name, None)) != getattr(defaults, name, None):
                yield from (option_name(name), str(value))
    yield from (option_name(name) for name in FLAGS if getattr(request, name, False) or getattr(request.settings, name, False))
