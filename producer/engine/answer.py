"""Answer prompts with any causal language model: by the prefill engine where it is correct, else by the model's own forward pass.

In: a model, prompts.  Out: `Answers`. Unless the engine answered a tested model type, they carry a note on the path, which is recorded with
the run.
"""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from producer.engine.admission import CHECKED, GENERIC, Route, agree, route_of
from producer.engine.checkpoints import NOTHING_KEPT, Keep
from producer.engine.layer_source import Target
from producer.engine.memory_needs import measure_needs
from producer.engine.memory_plan import plan_memory
from producer.engine.noise_floor import largest_changes, noise_floor, sample, unshared
from producer.engine.prefill import Answers, Done, prefill
from producer.engine.settings import Settings
from producer.engine.throughput import throughput
from producer.engine.whole_model import prefill_whole
from producer.machine.free_memory import memory_for, out_of_memory
from producer.prompts.encode import Prompts
from schemas.errors import UsageError

log = logging.getLogger(__name__)
FIRST_ITEMS = 4  # items that both paths answer for comparison; the shortest and the longest item are added


def answer(  # noqa: PLR0913, PLR0917
    model: Any,
    prompts: Prompts,
    option_ids: Sequence[int],
    target: Target,
    settings: Settings,
    done: Done,
    keep: Keep = NOTHING_KEPT,
    *,
    loaded: bool,
) -> Answers:
    """Return the answers to all prompts.

    option_ids : token id of each option letter.
    done       : called with the number of items answered since its last call; it may raise to stop the run.
    keep       : how to keep the answers so far; an answer that is not finite is kept as it is.
    loaded     : whether all weights are on the target's device.
    Raises UsageError if there is too little memory.
    """
    route = route_of(model.config, loaded=loaded)
    if route.path == CHECKED:
        route = _checked(model, prompts, option_ids, target, settings)
    if route.path == GENERIC:
        note = f"answered by {GENERIC}, since {route.reason}"
        log.warning("%s: %s", model.config.model_type, note)
        answers = _by_own_forward(model, prompts, option_ids, target, settings, done, keep, loaded=loaded)
        return replace(_broken_named(answers), notes=(note,))
    answers = _broken_named(_by_engine(model, prompts, option_ids, target, settings, done, keep, loaded=loaded))
    return replace(answers, notes=(f"answered by the {route.path}",)) if route.path == CHECKED else answers


def _broken_named(answers: Answers) -> Answers:
    """Return the answers without logits for items where another token's logit is NaN or infinite: no option has a probability there.

    A stored log-sum-exp of NaN would mean that the vocabulary was never seen.
    """
    finite = np.isfinite(answers.logsumexp)
    return replace(answers, logits=np.where(finite[:, None], answers.logits, np.float32(np.nan)))


def _checked(model: Any, prompts: Prompts, option_ids: Sequence[int], target: Target, settings: Settings) -> Route:
    """Return the engine's route if it agrees with the model's own forward pass on the first, shortest and longest items, else GENERIC."""
    by_length = sorted(range(len(prompts.suffixes)), key=lambda item: len(prompts.whole(item)))
    some = prompts.only(list(dict.fromkeys([*range(min(FIRST_ITEMS, len(by_length))), by_length[0], by_length[-1]])))
    try:
        plan = plan_memory(measure_needs(model, target.dtype, some), target.device, settings, loaded=True)
        fast = prefill(model, some, option_ids, plan, target, lambda _: None)
    except Exception as error:  # a model that is built differently may fail anywhere in the engine
        if out_of_memory(error):
            raise
        log.info("the prefill engine cannot run %s: %s", model.config.model_type, error)
        return Route(GENERIC, "the prefill engine cannot run its type")
    if agree(fast, prefill_whole(model, some, option_ids, target.device, lambda _: None), target.dtype):
        return Route(CHECKED)
    return Route(GENERIC, "the prefill engine gives other logits on the first items")


def _by_engine(  # noqa: PLR0913, PLR0917
    model: Any, prompts: Prompts, option_ids: Sequence[int], target: Target, settings: Settings, done: Done, keep: Keep, *, loaded: bool
) -> Answers:
    needs = measure_needs(model, target.dtype, prompts)
    checked = sample(prompts, settings.self_check, 0)
    if settings.self_check:  # the self-check also computes items without sharing the prefix, so they are longer
        needs = replace(needs, longest=max(needs.longest, *map(len, unshared(checked).suffixes)))
    plan = plan_memory(needs, target.device, settings, loaded=loaded)
    order = "layer by layer" if plan.streamed else "all weights on the device"
    log.info("%s, batches of %d tokens, %d at a time", order, plan.batch_tokens, plan.workers)
    clock = time.perf_counter()
    with memory_for("the shortest batch", target.device):
        answers = prefill(model, prompts, option_ids, plan, target, done, keep)
    rates = throughput(model, prompts, target, time.perf_counter() - clock, answers.padding)
    floor = noise_floor(model, checked, option_ids, plan, target) if settings.self_check else {}
    return replace(answers, throughput=rates, noise_floor=floor)


def _by_own_forward(  # noqa: PLR0913, PLR0917
    model: Any, prompts: Prompts, option_ids: Sequence[int], target: Target, settings: Settings, done: Done, keep: Keep, *, loaded: bool
) -> Answers:
    model = model if loaded else _offloaded(model, target.device)

    def ask(some: Prompts, batch_tokens: int, report: Done = lambda _: None, keep: Keep = NOTHING_KEPT) -> Answers:
        return prefill_whole(model, some, option_ids, target.device, report, batch_tokens, keep)

    clock = time.perf_counter()
    with memory_for("the shortest batch", target.device):
        answers = ask(prompts, settings.batch_tokens, done, keep)
    seconds = time.perf_counter() - clock
    floor: dict[str, float] = {}
    if settings.self_check:
        checked = sample(prompts, settings.self_check, 0)
        others = [ask(checked, 1).logits, ask(unshared(checked), settings.batch_tokens).logits]
        floor = largest_changes(ask(checked, settings.batch_tokens).logits, others, checked)
    rates = {"items_per_s": len(prompts.suffixes) / seconds, "tokens_per_s": answers.tokens / seconds}
    return replace(answers, throughput=rates, noise_floor=floor)


def _offloaded(model: Any, device: str) -> Any:
    """Return a model whose weights stay on the host and are copied to the device module by module.

    Raises UsageError on a CPU, where there is no other memory to keep them in.
    """
    if device == "cpu":
        size = math.ceil(sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()) / 2**20)
        kind = model.config.model_type
        raise UsageError(f"models of type {kind!r} need all their weights in memory, {size:,} MiB; allow more with --device-memory")
    from accelerate import cpu_offload  # type: ignore[import-untyped]

    return cpu_offload(model, execution_device=device)
