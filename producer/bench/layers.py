"""Layer-major order: SmolLM2 through a tenth of its weights, hidden states waiting in host memory and on disk, against all in memory."""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from producer.bench.peak import peak_memory
from producer.bench.rates import spread, timed
from producer.encode import Prompts, encode
from producer.engine.layers import Target
from producer.engine.memory import Layout, measure_needs, plan_memory
from producer.engine.prefill import Answers, prefill
from producer.models import AS_STORED, find_model, load_model, load_tokenizer
from producer.option_tokens import option_tokens
from producer.settings import Settings
from producer.tasks.source import draw, load_task
from schemas.errors import HedgemarkError

SHARE = 0.10
MOST_CHANGE, MOST_TIME = 1e-5, 1.3
ITEMS = 16
MIB = 2**20


def layers(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield logit change, time and peak memory within a tenth of the weights."""
    import torch

    try:
        files = find_model("smollm2-135m")
    except HedgemarkError as error:
        yield f"layer-major: not measured ({error})"
        return
    task = draw(load_task("mmlu", arguments.data), arguments.items or ITEMS, 0)
    whole, mapped, tokenizer = load_model(files, "float32", "cpu"), load_model(files, AS_STORED, "cpu"), load_tokenizer(files)
    prompts = encode(tokenizer, "", task.demonstrations, task.items, whole.config.max_position_embeddings)
    budget = int(SHARE * sum(p.numel() * 4 for p in whole.parameters()))
    needs, ids = measure_needs(whole, torch.float32, prompts), option_tokens(tokenizer, 6).ids
    rooms = {"host memory": budget, "a file": 1}
    small = {place: plan_memory(needs, "cpu", Settings(device_memory=budget, host_memory=rooms[place]), loaded=False) for place in rooms}
    usual = plan_memory(needs, "cpu", Settings(), loaded=True)
    expected = _run(whole, prompts, ids, replace(usual, batch_tokens=small["a file"].batch_tokens))[1]
    yield f"smollm2-135m mmlu few-shot, {len(prompts.suffixes)} items, layer-major within {budget / MIB:.0f} MiB, a tenth of its weights"
    fast = [_run(whole, prompts, ids, usual, arguments.clock)[0] for _ in range(arguments.rounds)]
    for place, layout in small.items():
        slow = [_run(mapped, prompts, ids, layout, arguments.clock)[0] for _ in range(arguments.rounds)]
        with peak_memory() as peak:
            _, answers = _run(mapped, prompts, ids, layout)
        change = float(np.abs(answers.logits - expected.logits).max())
        yield f"    hidden states in {place}: largest logit change {change:.1e}, at most {MOST_CHANGE:.0e} asked"
        yield f"    {spread(slow, fast)} times the time in memory, at most {MOST_TIME} asked"
        yield f"    peak memory above the start, waiting hidden states included: {peak[0] / MIB:.0f} MiB, at most {budget / MIB:.0f} asked"


def _run(model: Any, prompts: Prompts, options: tuple[int, ...], layout: Layout, clock: str = "wall") -> tuple[float, Answers]:
    import torch

    return timed(lambda: prefill(model, prompts, options, layout, Target("cpu", torch.float32), lambda _: None), clock)
