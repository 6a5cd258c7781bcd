"""What a backend is: something that turns a planned group into answered questions, model by model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from producer.engine.prefill import Answers, Done
from producer.engine.settings import Settings
from producer.run.plan import Group, Question
from schemas.levels import Level


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
