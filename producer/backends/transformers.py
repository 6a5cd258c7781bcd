"""Backend `transformers`: any causal language model, every method, on any device."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from producer.backends.base import Ready
from producer.engine.admission import GENERIC, route_of
from producer.engine.answer import answer
from producer.engine.layer_source import Target
from producer.engine.memory_plan import USABLE
from producer.engine.prefill import Answers, Done
from producer.engine.settings import Settings
from producer.machine.free_memory import free_memory, memory_for
from producer.methods.shared.make_linear import make_linear
from producer.models.compressed_weights import round_expert_inputs
from producer.models.load import AS_STORED, load_model
from producer.models.packed import check_stored
from producer.request.planned import Model, PromptedTask, RunGroup
from schemas.errors import UsageError
from schemas.levels import Level

log = logging.getLogger(__name__)


class TransformersBackend:
    """Every causal language model and every method on any device; computes only what the options need where it can."""

    def check(self, config: Any, methods: Sequence[str]) -> None:
        """Raise UsageError where transformers has no causal language model of this type, or for weights that cannot be read."""
        from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            kind = config.model_type
            raise UsageError(f"transformers has no causal language model of type {kind!r}; Python code in a model's folder is never run")
        check_stored(config)

    def ready(self, group: RunGroup, levels: Sequence[Level], settings: Settings) -> Iterator[Ready]:
        """Yield the group's model at each level: on the device where it fits, with a copy if there are several, else on the host."""
        resident = fits(group.model, len(levels), settings)
        device = group.model.device if resident else "cpu"
        mapped = group.is_dense and not resident and route_of(group.model.config, loaded=resident).path != GENERIC
        with memory_for("the weights", device):
            model = load_model(group.model.files, AS_STORED if mapped else group.model.dtype, device)
        model = round_expert_inputs(model, make_linear)
        parameters = model.num_parameters()
        if group.is_dense:
            yield Ready(levels[0], {}, parameters, _answerer(model, group, settings, loaded=resident))
            return
        compressed = group.method.sweep(model, levels, group.data, group.seed, group.model.device)
        for level in levels:
            with memory_for(f"what {group.method.name} needs at level {level.text!r}", group.model.device):
                applied = next(compressed)
            yield Ready(level, applied.conditions, parameters, _answerer(applied.model, group, settings, loaded=resident))
            del applied  # frees it before the next one is made


def budget(model: Model, settings: Settings) -> int:
    """Return the bytes that weights and activations may take on the model's device."""
    return settings.device_memory or int(USABLE * free_memory(model.device))


def fits(model: Model, n_levels: int, settings: Settings) -> bool:
    """Return whether the weights fit on the model's device, with the copy that each of several levels but the last starts from."""
    return min(n_levels, 2) * model.weight_bytes < budget(model, settings)


def _answerer(model: Any, group: RunGroup, settings: Settings, *, loaded: bool) -> Callable[[PromptedTask, Done], Answers]:
    import torch

    target = Target(group.model.device, getattr(torch, group.model.dtype))

    def answer_task(prompted: PromptedTask, done: Done) -> Answers:
        return answer(model, prompted.prompts, prompted.options.ids, target, settings, done, loaded=loaded)

    return answer_task
