"""Backend `transformers`: any device, every method, our own prefill engine; layer-major where the weights do not fit."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from producer.backends.base import Ready
from producer.engine.layer_source import Target
from producer.engine.memory_needs import measure_needs
from producer.engine.memory_plan import USABLE, MemoryPlan, plan_memory
from producer.engine.noise_floor import noise_floor, sample, unshared
from producer.engine.prefill import Answers, Done, prefill
from producer.engine.settings import Settings
from producer.engine.skeleton import check_model_type
from producer.engine.throughput import throughput
from producer.machine.free_memory import free_memory, memory_for
from producer.models.load import AS_STORED, load_model
from producer.models.packed import check_stored
from producer.request.planned import Model, PromptedTask, RunGroup
from schemas.levels import Level

log = logging.getLogger(__name__)


class TransformersBackend:
    """Every method on any device; computes only what the options need."""

    def check(self, config: Any, methods: Sequence[str]) -> None:
        """Raise UsageError for a model type the engine does not know, or weights stored in a way that cannot be read."""
        check_model_type(config)
        check_stored(config)

    def ready(self, group: RunGroup, levels: Sequence[Level], settings: Settings) -> Iterator[Ready]:
        """Yield the group's model at each level: on the device where it fits, with a copy if there are several, else on the host."""
        resident = fits(group.model, len(levels), settings)
        device = group.model.device if resident else "cpu"
        with memory_for("the weights", device):
            model = load_model(group.model.files, AS_STORED if group.is_dense and not resident else group.model.dtype, device)
        parameters = model.num_parameters()
        if group.is_dense:
            yield Ready(levels[0], {}, parameters, _answerer(model, group, settings, loaded=resident))
            return
        compressed = group.method.sweep(model, levels, group.data, group.seed, group.model.device)
        for level in levels:
            with memory_for(f"what {group.method.name} needs at level {level.text!r}", group.model.device):
                applied = next(compressed)
            yield Ready(level, applied.conditions, parameters, _answerer(applied.model, group, settings, loaded=resident))
            del applied  # before the next one is made


def budget(model: Model, settings: Settings) -> int:
    """Return the bytes that weights and activations may take on the model's device."""
    return settings.device_memory or int(USABLE * free_memory(model.device))


def fits(model: Model, n_levels: int, settings: Settings) -> bool:
    """Return whether the weights fit on the model's device, with the copy that each of several levels but the last starts from."""
    return min(n_levels, 2) * model.weight_bytes < budget(model, settings)


def _noise_floor(model: Any, prompted: PromptedTask, plan: MemoryPlan, target: Target, n_items: int) -> dict[str, float]:
    if not n_items:
        return {}
    return noise_floor(model, sample(prompted.prompts, n_items, 0), prompted.options.ids, plan, target)


def _answerer(model: Any, group: RunGroup, settings: Settings, *, loaded: bool) -> Callable[[PromptedTask, Done], Answers]:
    import torch

    target = Target(group.model.device, getattr(torch, group.model.dtype))

    def answer(prompted: PromptedTask, done: Done) -> Answers:
        needs = measure_needs(model, target.dtype, prompted.prompts)
        if settings.self_check:  # it asks prompts whole
            whole = unshared(sample(prompted.prompts, settings.self_check, 0))
            needs = replace(needs, longest=max(needs.longest, *map(len, whole.suffixes)))
        plan = plan_memory(needs, target.device, settings, loaded=loaded)
        order = "layer-major" if plan.streamed else "in-memory"
        log.info("%s order, batches of %d tokens, %d at a time", order, plan.batch_tokens, plan.workers)
        clock = time.perf_counter()
        with memory_for("the shortest batch", target.device):
            answers = prefill(model, prompted.prompts, prompted.options.ids, plan, target, done)
        rates = throughput(model, prompted.prompts, target, time.perf_counter() - clock, answers.padding)
        floor = _noise_floor(model, prompted, plan, target, settings.self_check)
        return replace(answers, throughput=rates, noise_floor=floor)

    return answer
