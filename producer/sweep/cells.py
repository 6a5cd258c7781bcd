"""Cells: a sweep cut into commands, each of which is `produce` for one model, method and level.

In: requests.  Out: `Command`s with a readable name; and what became of each.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from producer.bayes import BAYES
from producer.choices import choose_levels
from producer.request import Request
from producer.settings import Settings

FAILED_TO_START = 127


@dataclass(frozen=True)
class Command:
    """One cell: its name, the arguments of `produce` that make it, and the devices it takes."""

    name: str
    arguments: tuple[str, ...]
    devices: int = 1

    @property
    def argv(self) -> list[str]:
        """The whole command, in this interpreter."""
        return [sys.executable, "-m", "producer", *self.arguments]


@dataclass(frozen=True)
class Finished:
    """What became of a cell: its exit code, the runs it named, and the last line it said on stderr."""

    command: Command
    exit_code: int
    runs: tuple[str, ...] = ()
    reason: str = ""


def split(requests: Sequence[Request], store_url: str, settings: Settings) -> list[Command]:
    """Return one command per model, method and level, each once."""
    commands = [command for request in requests for command in _commands(request, store_url, settings)]
    return list(dict.fromkeys(commands))


def _commands(request: Request, store_url: str, settings: Settings) -> Iterator[Command]:
    shared = tuple(_shared(request, store_url, settings))
    for model in request.models:
        if model == BAYES:
            yield Command(BAYES, ("--model", BAYES, "--method", BAYES, *shared))
            continue
        for method, levels in choose_levels(request.methods, request.levels).items():
            for level in levels:
                arguments = ("--model", model, "--method", method, "--level", level.text, *shared)
                yield Command(f"{model} {method} {level.text}", arguments, settings.tensor_parallel)


def _shared(request: Request, store_url: str, settings: Settings) -> Iterator[str]:
    yield from ("--store", store_url)
    for option, values in (("--task", request.tasks), ("--prompt", request.prompts)):
        for value in values:
            yield from (option, value)
    usual = Request(models=())
    for name in ("limit", "data", "prompt_file", "backend", "device", "dtype", "seed", "compression_data"):
        if (value := getattr(request, name)) != getattr(usual, name):
            yield from (f"--{name.replace('_', '-')}", str(value))
    for name in ("batch_tokens", "device_memory", "host_memory", "tensor_parallel", "self_check"):
        if (value := getattr(settings, name)) != getattr(Settings(), name):
            yield from (f"--{name.replace('_', '-')}", str(value))
    yield from (f"--{name.replace('_', '-')}" for name in ("allow_nonfinite", "replace") if getattr(request, name))
