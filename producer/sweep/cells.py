"""Cells: a sweep cut into commands, each of which is `produce` for one model, method and level.

In: what is asked.  Out: `Command`s with a readable name; and what became of each.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from producer.engine.settings import Settings
from producer.request.bayes import BAYES
from producer.request.choices import choose_levels
from producer.request.parse import Asked, option
from producer.request.request import Request

FAILED_TO_START = 127
SCALARS = (
    *("limit", "data", "prompt_file", "backend", "device", "dtype", "seed", "compression_data"),
    *("batch_tokens", "device_memory", "host_memory", "tensor_parallel", "self_check"),
)


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


def split(plan: Sequence[Asked], store_url: str) -> list[Command]:
    """Return one command per model, method and level, each once."""
    commands = [command for asked in plan for command in _commands(asked, store_url)]
    return list(dict.fromkeys(commands))


def _commands(asked: Asked, store_url: str) -> Iterator[Command]:
    request, settings = asked
    shared = tuple(_shared(request, settings, store_url))
    for model in request.models:
        if model == BAYES:
            yield Command(BAYES, ("--model", BAYES, "--method", BAYES, *shared))
            continue
        for method, levels in choose_levels(request.methods, request.levels).items():
            for level in levels:
                arguments = ("--model", model, "--method", method, "--level", level.text, *shared)
                yield Command(f"{model} {method} {level.text}", arguments, settings.tensor_parallel)


def _shared(request: Request, settings: Settings, store_url: str) -> Iterator[str]:
    yield from ("--store", store_url)
    yield from (text for task in request.tasks for text in ("--task", task))
    yield from (text for prompt in request.prompts for text in ("--prompt", prompt))
    for given, usual in ((request, Request(models=())), (settings, Settings())):
        for name in SCALARS:
            if (value := getattr(given, name, None)) != getattr(usual, name, None):
                yield from (option(name), str(value))
    yield from (option(name) for name in ("allow_nonfinite", "replace") if getattr(request, name))
