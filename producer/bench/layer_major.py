"""Layer by layer: SmolLM2 within a tenth of its weights' memory, hidden states in RAM or on disk, compared with all weights in memory."""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np

from producer.bench.peak import in_use, peak_memory
from producer.bench.rates import spread, timed
from producer.engine.layer_source import Target
from producer.engine.memory_needs import measure_needs
from producer.engine.memory_plan import MemoryPlan, plan_memory
from producer.engine.prefill import Answers, prefill
from producer.engine.settings import Settings
from producer.machine.free_memory import share_malloc_arena
from producer.models.find import find_model
from producer.models.load import AS_STORED, load_model, load_tokenizer
from producer.prompts.encode import Prompts, encode, option_tokens
from producer.tasks.source import draw, load_task
from schemas.errors import HedgemarkError

SHARE = 0.10
MOST_CHANGE, MOST_TIME = 1e-5, 1.3
ITEMS = 16
MIB = 2**20
STORAGES = ("host memory", "a file")


class Workload(NamedTuple):
    """A model, its prompts and option tokens; `budget` is a tenth of its weights in bytes."""

    model: Any
    prompts: Prompts
    options: tuple[int, ...]
    budget: int

    def layer_by_layer(self, storage: str) -> MemoryPlan:
        """Return the plan within the budget that stores hidden states in one of `STORAGES`."""
        settings = Settings(device_memory=self.budget, host_memory=self.budget if storage == STORAGES[0] else 1)
        return plan_memory(self._needs(), "cpu", settings, loaded=False)

    def in_memory(self) -> MemoryPlan:
        """Return the plan with all weights in memory."""
        return plan_memory(self._needs(), "cpu", Settings(), loaded=True)

    def run(self, plan: MemoryPlan) -> Answers:
        """Answer all items."""
        import torch

        return prefill(self.model, self.prompts, self.options, plan, Target("cpu", torch.float32), lambda _: None)

    def _needs(self) -> Any:
        import torch

        return measure_needs(self.model, torch.float32, self.prompts)


def layers(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the change of logits, the time and the peak memory of running within a tenth of the weights' memory."""
    try:
        resident, mapped = workload(arguments, "float32"), workload(arguments, AS_STORED)
    except HedgemarkError as error:
        yield f"layer-major: not measured ({error})"
        return
    plans = {storage: mapped.layer_by_layer(storage) for storage in STORAGES}
    plain = replace(resident.in_memory(), batch_tokens=plans[STORAGES[0]].batch_tokens)
    expected, answers = resident.run(plain), {storage: mapped.run(plan) for storage, plan in plans.items()}
    fast, slow = [], {storage: list[float]() for storage in STORAGES}
    for _ in range(arguments.rounds):
        fast.append(timed(partial(resident.run, resident.in_memory()), arguments.clock)[0])
        for storage, plan in plans.items():
            slow[storage].append(timed(partial(mapped.run, plan), arguments.clock)[0])
    budget = f"{resident.budget / MIB:.0f} MiB"
    yield f"smollm2-135m mmlu few-shot, {len(resident.prompts.suffixes)} items, layer by layer within {budget}, a tenth of its weights"
    for storage in STORAGES:
        with get_context("spawn").Pool(1) as fresh:  # a new process: in this one, reused memory would hide new allocations
            used, grown = fresh.apply(peak_in, (arguments, storage))
        change = float(np.abs(answers[storage].logits - expected.logits).max())
        yield f"    hidden states in {storage}: largest logit change {change:.1e} (target: at most {MOST_CHANGE:.0e})"
        yield f"    {spread(slow[storage], fast)} times the time in memory (target: at most {MOST_TIME})"
        yield f"    peak memory in use, stored hidden states included: {used / MIB:.0f} MiB (target: at most {budget})"
        yield f"    the process grew by {grown / MIB:.0f} MiB; the rest was memory freed after loading"


def workload(arguments: argparse.Namespace, dtype: str) -> Workload:
    """Return SmolLM2 and MMLU items with demonstrations; dtype AS_STORED maps the weights from their file."""
    files = find_model("smollm2-135m")
    task = draw(load_task("mmlu", arguments.data), arguments.items or ITEMS, 0)
    model, tokenizer = load_model(files, dtype, "cpu"), load_tokenizer(files)
    prompts = encode(tokenizer, "", task.demonstrations, task.items, model.config.max_position_embeddings)
    budget = int(SHARE * sum(parameter.numel() * 4 for parameter in model.parameters()))
    return Workload(model, prompts, option_tokens(tokenizer, 6).ids, budget)


def peak_in(arguments: argparse.Namespace, storage: str) -> tuple[int, int]:
    """Return, in bytes above what the process had with the model mapped: the peak memory in use, and the growth of the process."""
    share_malloc_arena()  # as `produce` does
    work = workload(arguments, AS_STORED)
    plan = work.layer_by_layer(storage)
    work._replace(prompts=Prompts((), work.prompts.suffixes[:2], [False] * 2)).run(plan)  # libraries allocate on first use
    with peak_memory(in_use) as used, peak_memory() as grown:
        work.run(plan)
    return used[0], grown[0]
