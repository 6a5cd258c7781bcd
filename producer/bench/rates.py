"""Items per second of this engine, of lm-evaluation-harness, and of one prompt per forward pass.

All three run the same model, prompts and dtype on the same device and threads, one after the other in every round; a ratio is shown as
its median and range over rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from producer.bench.cases import Case, cases
from producer.bench.peer import Peer
from producer.engine.layer_source import Target
from producer.engine.memory_needs import measure_needs
from producer.engine.memory_plan import plan_memory
from producer.engine.prefill import Answers, prefill
from producer.engine.settings import Settings

MOST_GAP = 1e-4
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def rates(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield items per second and speed ratios of every case, in float32."""
    for case in cases(arguments, "float32"):
        yield from [case] if isinstance(case, str) else _rates(case, arguments)


def answer(case: Case, device: str) -> Answers:
    """Answer all items with the prefill engine, with the memory plan that `produce` would choose."""
    target = Target(device, case.model.dtype)
    plan = plan_memory(measure_needs(case.model, target.dtype, case.prompts), device, Settings(), loaded=True)
    return prefill(case.model, case.prompts, case.option_ids, plan, target, lambda _: None)


def one_by_one(case: Case) -> NDArray[np.float32]:
    """Return option logits (item, option) computed as by the published benchmark: one prompt per forward pass, logits at every position."""
    import torch

    with torch.inference_mode():
        rows = [_one(case, item) for item in range(len(case.texts))]
    return np.array(rows, np.float32)


def timed(work: Callable[[], Any], clock: str) -> tuple[float, Any]:
    """Return the seconds that `work` took on one of `CLOCKS`, and its result."""
    start = CLOCKS[clock]()
    result = work()
    return CLOCKS[clock]() - start, result


def spread(slow: Sequence[float], fast: Sequence[float]) -> str:
    """Return the ratio of times measured in the same rounds, as median and range."""
    ratios = sorted(one_slow / one_fast for one_slow, one_fast in zip(slow, fast, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def _rates(case: Case, arguments: argparse.Namespace) -> Iterator[str]:
    ours, single = [], []
    with closing(Peer(case, arguments)) as peer:
        for _ in range(arguments.rounds):
            seconds, answers = timed(partial(answer, case, arguments.device), arguments.clock)
            ours.append(seconds)
            single.append(timed(partial(one_by_one, case), arguments.clock)[0])
            peer.round()
    yield f"{case.name}, {len(case.texts)} items: {_per_second(case, ours)} with the prefill engine"
    yield f"    {_per_second(case, single)} with one prompt per forward pass, full head: the engine is {spread(single, ours)} times as fast"
    if peer.gaps is None:
        yield "    lm-evaluation-harness is not installed here: no ratio"
    else:
        gap = float(np.abs(answers.logits - answers.logits[:, :1] - peer.gaps).max())
        how = f"lm-evaluation-harness, batches of {arguments.batch_size}"
        ratio = spread(peer.seconds, ours)
        speed = _per_second(case, peer.seconds)
        yield f"    {speed} with {how}: the engine is {ratio} times as fast (target: at least {case.least_ratio})"
        yield f"    largest difference of option-logit gaps {gap:.1e} (target: at most {MOST_GAP:.0e})"
    yield f"    {answers.padding:.1%} padding"


def _one(case: Case, item: int) -> list[float]:
    import torch

    ids = torch.tensor([case.prompts.whole(item)], device=case.model.device)
    logits = case.model(input_ids=ids, use_cache=False).logits[0, -1, list(case.option_ids)]
    return [float(value) for value in logits]


def _per_second(case: Case, seconds: Sequence[float]) -> str:
    return f"{len(case.texts) / statistics.median(seconds):.2f} items/s"
