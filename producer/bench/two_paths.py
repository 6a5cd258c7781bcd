"""The two paths that answer a model, in processor seconds: the prefill engine, and the model's own forward pass in batches of equal length.

Prompts with demonstrations are answered twice: with the demonstrations computed once for all items, and with every prompt computed whole.
The time of the model's own pass includes its check that the cache of the demonstrations may be repeated.
"""

import argparse
import statistics
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from producer.bench.cases import Case, cases
from producer.bench.rates import MOST_GAP, answer, spread, timed
from producer.engine.noise_floor import unshared
from producer.engine.prefill import Answers
from producer.engine.whole_model import prefill_whole

TASK = "mmlu"
MORE_ITEMS = 3  # times as many items as in the part `rates`: the check of the cache, on five items, hardly counts in real runs


class _Seconds(NamedTuple):
    """Processor seconds of each round."""

    engine: list[float]
    own_pass: list[float]


def paths(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the processor seconds of both paths for every case, and what sharing the demonstrations saves each of them, in float32."""
    arguments = argparse.Namespace(**{**vars(arguments), "task": arguments.task or [TASK]})
    for case in cases(arguments, "float32", MORE_ITEMS):
        yield from [case] if isinstance(case, str) else _paths(case, arguments)


def _paths(case: Case, arguments: argparse.Namespace) -> Iterator[str]:
    yield f"{case.name}, {len(case.texts)} items, in processor seconds"
    shared, lines = _measured(case, arguments)
    if not case.name.endswith("few-shot"):
        yield from lines
        return
    whole, lines_whole = _measured(case._replace(prompts=unshared(case.prompts)), arguments)
    yield "    demonstrations computed once:"
    yield from (f"    {line}" for line in lines)
    yield "    every prompt computed whole:"
    yield from (f"    {line}" for line in lines_whole)
    engine, own_pass = (spread(slow, fast) for slow, fast in zip(whole, shared, strict=True))
    yield f"    computing every prompt whole takes the engine {engine} times as long, and the model's own forward pass {own_pass} times"


def _measured(case: Case, arguments: argparse.Namespace) -> tuple[_Seconds, list[str]]:
    """Return the seconds of both paths, which take turns, and what to say of them."""
    seconds = _Seconds([], [])
    for _ in range(arguments.rounds):
        spent, fast = timed(partial(answer, case, arguments.device), "cpu")
        seconds.engine.append(spent)
        spent, slow = timed(partial(_by_own_pass, case, arguments.device), "cpu")
        seconds.own_pass.append(spent)
    engine, own_pass = map(statistics.median, seconds)
    gap = float(np.nanmax(np.abs(fast.logits - slow.logits)))
    return seconds, [
        f"    {engine:.2f} s with the prefill engine, {own_pass:.2f} s with the model's own forward pass: "
        f"{spread(seconds.own_pass, seconds.engine)} times as long",
        f"    largest difference of option logits {gap:.1e} (target: at most {MOST_GAP:.0e})",
    ]


def _by_own_pass(case: Case, device: str) -> Answers:
    return prefill_whole(case.model, case.prompts, case.option_ids, device, lambda _: None)
