"""Prompts of random tokens, the engine's answers to them, and those of a plain forward pass."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from producer_tiny import VOCABULARY

from producer.engine.checkpoints import NOTHING_KEPT, Keep
from producer.engine.layer_source import Target
from producer.engine.memory_plan import MemoryPlan
from producer.engine.prefill import Answers, prefill
from producer.prompts.encode import Prompts

OPTIONS = (5, 9, 11, 40)


def some_prompts(n_items: int = 7, n_prefix: int = 9, cut: int = 1, seed: int = 0) -> Prompts:
    rng = np.random.default_rng(seed)
    suffixes = [rng.integers(1, VOCABULARY, size=rng.integers(1, 12)).tolist() for _ in range(n_items)]
    return Prompts(tuple(rng.integers(1, VOCABULARY, n_prefix).tolist()), suffixes, [item < cut for item in range(n_items)])


def run(
    model: object,
    prompts: Prompts,
    tokens: int = 24,
    done: Callable[[int], None] = lambda _: None,
    keep: Keep = NOTHING_KEPT,
    **plan: Any,
) -> Answers:
    how = MemoryPlan(streamed=False, batch_tokens=tokens, wave_tokens=0, states_device="cpu", head_rows=64, concurrent_tokens=1_000_000)
    return prefill(model, prompts, OPTIONS, replace(how, **plan), Target("cpu", torch.float32), done, keep)


def plain(model: object, prompts: Prompts) -> np.ndarray:
    with torch.inference_mode():
        rows = [model(input_ids=torch.tensor([prompts.whole(i)])).logits[0, -1] for i in range(len(prompts.suffixes))]
    return torch.stack(rows).numpy()
