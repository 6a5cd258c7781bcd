"""Layer-major order: SmolLM2 through a tenth of its weights, hidden states waiting in host memory and on disk, against all in memory."""

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
from producer.engine.memory_plan import Layout, measure_needs, plan_memory
from producer.engine.prefill import Answers, prefill
from producer.engine.settings import Settings
from producer.machine.free_memory import tame_malloc
from producer.models.find import AS_STORED, find_model, load_model, load_tokenizer
from producer.prompts.encode import Prompts, encode, option_tokens
from producer.tasks.source import draw, load_task
from schemas.errors import HedgemarkError

SHARE = 0.10
MOST_CHANGE, MOST_TIME = 1e-5, 1.3
ITEMS = 16
MIB = 2**20
PLACES = ("host memory", "a file")


class Question(NamedTuple):
    """A model and what it is asked; `budget` is a tenth of its weights in bytes."""

    model: Any
    prompts: Prompts
    options: tuple[int, ...]
    budget: int

    def layout(self, place: str) -> Layout:
        """Return the layer-major layout within the budget whose hidden states wait in one of `PLACES`."""
        settings = Settings(device_memory=self.budget, host_memory=self.budget if place == PLACES[0] else 1)
        return plan_memory(self._needs(), "cpu", settings, loaded=False)

    def usual(self) -> Layout:
        """Return the layout with all weights in memory."""
        return plan_memory(self._needs(), "cpu", Settings(), loaded=True)

    def ask(self, layout: Layout) -> Answers:
        """Answer all items."""
        import torch

        return prefill(self.model, self.prompts, self.options, layout, Target("cpu", torch.float32), lambda _: None)

    def _needs(self) -> Any:
        import torch

        return measure_needs(self.model, torch.float32, self.prompts)


def layers(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield logit change, time and peak memory within a tenth of the weights."""
    try:
        whole, mapped = question(arguments, "float32"), question(arguments, AS_STORED)
    except HedgemarkError as error:
        yield f"layer-major: not measured ({error})"
        return
    layouts = {place: mapped.layout(place) for place in PLACES}
    plain = replace(whole.usual(), batch_tokens=layouts[PLACES[0]].batch_tokens)
    expected, answers = whole.ask(plain), {place: mapped.ask(layout) for place, layout in layouts.items()}
    fast, slow = [], {place: list[float]() for place in PLACES}
    for _ in range(arguments.rounds):
        fast.append(timed(partial(whole.ask, whole.usual()), arguments.clock)[0])
        for place, layout in layouts.items():
            slow[place].append(timed(partial(mapped.ask, layout), arguments.clock)[0])
    budget = f"{whole.budget / MIB:.0f} MiB"
    yield f"smollm2-135m mmlu few-shot, {len(whole.prompts.suffixes)} items, layer-major within {budget}, a tenth of its weights"
    for place in PLACES:
        with get_context("spawn").Pool(1) as fresh:  # a process that has run nothing holds no free memory that would hide what is taken
            used, held = fresh.apply(peak_in, (arguments, place))
        change = float(np.abs(answers[place].logits - expected.logits).max())
        yield f"    hidden states in {place}: largest logit change {change:.1e}, at most {MOST_CHANGE:.0e} asked"
        yield f"    {spread(slow[place], fast)} times the time in memory, at most {MOST_TIME} asked"
        yield f"    peak memory in use, waiting hidden states included: {used / MIB:.0f} MiB, at most {budget} asked"
        yield f"    the process grew by {held / MIB:.0f} MiB; the rest lay in memory that loading had left free"


def question(arguments: argparse.Namespace, dtype: str) -> Question:
    """Return SmolLM2 with its weights in memory or, as stored, mapped from their file, and MMLU items with demonstrations."""
    files = find_model("smollm2-135m")
    task = draw(load_task("mmlu", arguments.data), arguments.items or ITEMS, 0)
    model, tokenizer = load_model(files, dtype, "cpu"), load_tokenizer(files)
    prompts = encode(tokenizer, "", task.demonstrations, task.items, model.config.max_position_embeddings)
    budget = int(SHARE * sum(p.numel() * 4 for p in model.parameters()))
    return Question(model, prompts, option_tokens(tokenizer, 6).ids, budget)


def peak_in(arguments: argparse.Namespace, place: str) -> tuple[int, int]:
    """Return the most memory (bytes) in use, and held, by layer-major order above what this process had with the model mapped."""
    tame_malloc()  # as `produce` does
    asked = question(arguments, AS_STORED)
    layout = asked.layout(place)
    asked._replace(prompts=Prompts((), asked.prompts.suffixes[:2], [False] * 2)).ask(layout)  # what libraries take once is no part of it
    with peak_memory(in_use) as used, peak_memory() as held:
        asked.ask(layout)
    return used[0], held[0]
