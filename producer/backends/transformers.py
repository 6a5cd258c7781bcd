"""Backend `transformers`: any device, every method, our own prefill engine."""

from collections.abc import Iterator, Sequence
from typing import Any

from producer.backends.base import Done, Ready, Settings
from producer.engine.memory import default_tokens
from producer.engine.prefill import Answers, prefill
from producer.engine.skeleton import check_layout
from producer.models import load_model
from producer.plan import Group, Question, is_dense
from schemas.levels import Level


class TransformersBackend:
    """Loads the weights once per group, compresses in memory, runs what was compressed."""

    def check(self, config: Any, methods: Sequence[str]) -> None:
        """Raise UsageError for a model type the engine does not know."""
        check_layout(config)

    def ready(self, group: Group, levels: Sequence[Level], settings: Settings) -> Iterator[Ready]:
        """Yield the group's model at each level, in memory."""
        model = load_model(group.model.files, group.model.dtype, group.model.device)
        parameters = model.num_parameters()
        if is_dense(group):
            yield Ready(levels[0], {}, parameters, _answerer(model, settings))
            return
        seed = group.cells[0].key.seed if group.cells[0].key else 0
        for level, applied in zip(levels, group.method.sweep(model, levels, group.data, seed), strict=True):
            yield Ready(level, applied.conditions, parameters, _answerer(applied.model, settings))


def _answerer(model: Any, settings: Settings) -> Any:
    def answer(question: Question, done: Done) -> Answers:
        tokens = settings.batch_tokens or default_tokens(question.model.device)
        return prefill(model, question.prompts, question.options.ids, tokens, done)

    return answer
