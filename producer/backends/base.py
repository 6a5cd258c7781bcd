"""The interface of a backend: it loads the model of a run group at each level, and lets it answer prompted tasks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from producer.engine.checkpoints import NOTHING_KEPT, Keep
from producer.engine.prefill import Answers, Done
from producer.engine.settings import Settings
from producer.request.planned import ModelText, PromptedTask, RunGroup
from schemas.levels import Level
from schemas.run import TokenArrays

MODEL_HASH = "model_sha256"  # the condition that says which weights answered; a compressed model may come out otherwise the second time


class Answer(Protocol):
    """A model's answering function."""

    def __call__(self, prompted: PromptedTask, done: Done, keep: Keep = NOTHING_KEPT, /) -> Answers:
        """Return the answers to a prompted task, see `producer.engine.answer.answer`."""


class Ready(NamedTuple):
    """A model ready to answer: compressed to a level, with the post-conditions measured on it.

    forget : delete the answers that this backend kept by itself so that a run which is cut off can go on, or None if it uses `Keep`;
             called when the runs are committed.
    read   : read a text beside the dense model; None for backends that cannot.
    cost   : seconds and peak memory of the compression by name; nothing where nothing was compressed, or only a part by this command.
    discard : delete the finished layers of the model's compression, or None if there are none on disk; called when the runs are committed.
    """

    level: Level
    conditions: Mapping[str, Any]
    parameters: int
    answer: Answer
    forget: Callable[[], None] | None = None
    read: Callable[[ModelText, Done], TokenArrays] | None = None
    discard: Callable[[], None] | None = None
    cost: Mapping[str, float] = {}


class Failed(NamedTuple):
    """A level at which the model could not be made, with the reason; the levels after it are not affected."""

    level: Level
    error: Exception


class Backend(Protocol):
    """A way to run models. `check` raises UsageError for what it cannot do, before weights are loaded."""

    def check(self, config: Any, methods: Sequence[str]) -> None:
        """Raise UsageError if this backend does not support a model type or a method."""

    def ready(self, group: RunGroup, levels: Sequence[Level], settings: Settings) -> Iterator[Ready | Failed]:
        """Yield the group's model at each level, or why there is none; the caller is done with a model when it requests the next one.

        An error is raised where no level can be made, as when the weights cannot be loaded.
        """
