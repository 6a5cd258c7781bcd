"""What a backend is: something that turns a planned group into answered questions, model by model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from producer.engine.prefill import Answers
from producer.plan import Group, Question
from schemas.levels import Level

Done = Callable[[int], None]


@dataclass(frozen=True)
class Settings:
    """How to run, with no effect on the numbers beyond rounding. 0 leaves a size to be found out.

    batch_tokens  : most tokens in a batch.
    device_memory : bytes that weights and activations may take on the device.
    host_memory   : bytes that weights and hidden states may take on the host.
    """

    batch_tokens: int = 0
    device_memory: int = 0
    host_memory: int = 0
    backend_options: Mapping[str, Any] = field(default_factory=dict)


class Ready(NamedTuple):
    """A model ready to answer: compressed to a level, with the post-conditions measured on it."""

    level: Level
    conditions: Mapping[str, Any]
    parameters: int
    answer: Callable[[Question, Done], Answers]


class Backend(Protocol):
    """A way to run models. `check` raises UsageError for what it cannot do, before weights are loaded."""

    def check(self, config: Any, methods: Sequence[str]) -> None:
        """Raise UsageError where a model type or a method is beyond this backend."""

    def ready(self, group: Group, levels: Sequence[Level], settings: Settings) -> Iterator[Ready]:
        """Yield the group's model at each level; use one before asking for the next."""
