"""Small stores and views made in memory for the analyzer's tests."""

from functools import lru_cache
from typing import Any

import numpy as np

from analyzer.runs.memory import MemoryReader
from analyzer.runs.view import RunView, view_run
from schemas.items import Item
from schemas.itemset import ItemSet, build_item_set
from schemas.run import Run, RunKey

__all__ = ["MemoryReader", "equal_items", "item_set", "make_run", "make_view", "skilled_logits", "toy"]


def item_set(answers: np.ndarray, n_options: int = 4, task: str = "quiz", subjects: int = 1) -> ItemSet:
    items = [Item(id=str(i), answer="ABCDEFGHIJKLMNOPQRSTUVWXYZ"[a], subject=f"s{i % subjects}") for i, a in enumerate(answers)]
    return build_item_set(task, items, n_options=[n_options] * len(items))


@lru_cache
def equal_items(n_items: int, n_options: int = 4, subjects: int = 1) -> ItemSet:
    """The item set of simulations: answers take turns. Made once, since making it takes longer than all that is done with it."""
    return item_set(np.arange(n_items) % n_options, n_options, subjects=subjects)


def make_run(items: ItemSet, logits: np.ndarray, **key: Any) -> Run:
    fields = {"model": "toy", "method": "dense", "task": items.task, "items_hash": items.digest, "prompt": "base"} | key
    n = len(items)
    return Run(RunKey(**fields), logits.astype(np.float32), np.full(n, np.nan, np.float32), np.full(n, -1, np.int32))


def make_view(items: ItemSet, logits: np.ndarray, **key: Any) -> RunView:
    run = make_run(items, logits, **key)
    return view_run(run, items, {"name": run.key.name} | run.key.model_dump(), "(in memory)")


def skilled_logits(rng: np.random.Generator, answers: np.ndarray, n_options: int, skill: float = 1.5) -> np.ndarray:
    """Logits of a model that knows something: noise, and `skill` on the answer."""
    logits = rng.normal(size=(len(answers), n_options))
    logits[np.arange(len(answers)), answers] += skill
    return logits.astype(np.float32)


def toy(n_items: int = 200, n_options: int = 4, seed: int = 0, skill: float = 1.5, **key: Any) -> RunView:
    rng = np.random.default_rng(seed)
    answers = rng.integers(0, n_options, n_items)
    return make_view(item_set(answers, n_options), skilled_logits(rng, answers, n_options, skill), **key)
