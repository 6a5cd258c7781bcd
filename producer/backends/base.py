"""The interface of a backend: it loads the model of a run group at each level, and lets it answer prompted tasks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from producer.engine.prefill import Answers, Done
from producer.engine.settings import Settings
from producer.request.planned import PromptedTask, RunGroup
from schemas.levels import Level


class Ready(NamedTuple):
    """A model ready to answer: compressed to a level, with the post-conditions measured on it.

    forget : delete the answers that were kept so that a run which is cut off can go on; called when the runs are committed.
    """

    level: Level
    conditions: Mapping[str, Any]
    parameters: int
    answer: Callable[[PromptedTask, Done], Answers]
    forget: Callable[[], None] = lambda: None


class Backend(Protocol):
    """A way to run models. `check` raises UsageError for what it cannot do, before weights are loaded."""

    def check(self, config: Any, methods: Sequence[str]) -> None:
        """Raise UsageError if this backend does not support a model type or a method."""

    def ready(self, group: RunGroup, levels: Sequence[Level], settings: Settings) -> Iterator[Ready]:
        """Yield the group's model at each level; the caller is done with a model when it requests the next one."""
