"""The cases that the benches measure: a model on some items of a task, zero-shot or with demonstrations."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from producer.models.find import find_model
from producer.models.load import load_model, load_tokenizer
from producer.prompts.encode import Prompts, encode, option_tokens
from producer.prompts.templates import render_item, render_prefix
from producer.tasks.source import TaskItems, draw, load_task
from schemas.errors import HedgemarkError


class Shots(NamedTuple):
    """Number of demonstrations and items, and the smallest acceptable speed ratio to lm-evaluation-harness."""

    demonstrations: int
    items: int
    least_ratio: float


# The vocabulary of ref-l has only the words of the embedded tasks; unknown tokens take as long as known ones, so speed is not affected.
TASKS = {"smollm2-135m": ("mmlu", "hellaswag"), "ref-l": ("mmlu", "hellaswag", "urn")}
SHOTS = {"zero-shot": Shots(0, 24, 1.0), "few-shot": Shots(5, 8, 2.5)}
MORE_ITEMS = {"ref-l": 20}  # a small model gets more items, so that a round takes seconds


class Case(NamedTuple):
    """One model on one task with some demonstrations."""

    name: str
    model: Any
    folder: Path
    prompts: Prompts
    texts: list[str]
    option_ids: tuple[int, ...]
    letters: str
    least_ratio: float


def cases(arguments: argparse.Namespace, dtype: str, times: int = 1) -> Iterator[Case | str]:
    """Yield the selected cases with `times` as many items as usual; for a model that cannot be loaded, a line that says why."""
    for name in arguments.model or TASKS:
        try:
            files = find_model(name)
            model = load_model(files, dtype, arguments.device)
        except (HedgemarkError, OSError) as error:
            yield f"{name}: not measured ({error})"
            continue
        tokenizer = load_tokenizer(files)
        for task in TASKS[name]:
            for shots in arguments.shots or SHOTS:
                if task in (arguments.task or TASKS[name]):
                    n_items = arguments.items or SHOTS[shots].items * MORE_ITEMS.get(name, 1) * times
                    items = draw(load_task(task, arguments.data), n_items, 0)
                    yield make_case(f"{name} {task} {shots}", model, files.folder, tokenizer, items, SHOTS[shots])


def make_case(name: str, model: Any, folder: Path, tokenizer: Any, items: TaskItems, shots: Shots) -> Case:  # noqa: PLR0913, PLR0917
    """Return a case: the items as tokens for this engine, and as text for lm-evaluation-harness."""
    shown = items.demonstrations[: shots.demonstrations]
    prompts = encode(tokenizer, "", shown, items.items, model.config.max_position_embeddings)
    letters = "ABCDEF"[: max(len(item.choices) for item in items.items)]
    texts = [render_prefix("", shown) + render_item(item) for item in items.items]
    return Case(name, model, folder, prompts, texts, option_tokens(tokenizer, len(letters)).ids, letters, shots.least_ratio)
