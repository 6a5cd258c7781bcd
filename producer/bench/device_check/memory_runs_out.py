"""Memory runs out for real: the device's allocator refuses, the engine halves the batch, and the answers are those of a run undisturbed."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from producer.bench.device_check.answers import SAME, largest_difference
from producer.bench.device_check.finding import Finding, Measured, Where, attempt
from producer.bench.gpu import GIB, Shape, random_model, random_prompts
from producer.engine.layer_source import Target
from producer.engine.memory_plan import MemoryPlan
from producer.engine.prefill import Answers, prefill

LARGE, SMALL = Shape("four layers", 2048, 8192, 4, 16, 4, 0, 0.0), Shape("two layers", 256, 1024, 2, 4, 2, 0, 0.0)
LEFT, LEFT_SMALL = 5 * GIB, GIB // 8  # memory that is left for activations; one batch of all items takes three times as much and more
WITHOUT_LIMIT = 1 << 20  # tokens in a batch: all items at once


def memory_runs_out(where: Where) -> Iterator[Finding]:
    """Yield whether a batch that does not fit is halved until it does, with all weights on the device and layer by layer."""
    shape, prompts = (SMALL, random_prompts(400, 16, 48)) if where.small else (LARGE, random_prompts(512, 64, 200))
    for kind, home in {"all weights on the device": where.device, "layer by layer": "cpu"}.items():
        model = random_model(shape, home, where.device).float()
        yield attempt(kind, partial(_halved, model, prompts, where, streamed=home != where.device))


def _halved(model: Any, prompts: Any, where: Where, *, streamed: bool) -> Measured:
    undisturbed = _answers(model, prompts, where.device, streamed=streamed, batch_tokens=2048)
    log_lines = _LogLines()
    logging.getLogger("producer").addHandler(log_lines)
    try:
        with _scarce(where.device, LEFT_SMALL if where.small else LEFT):
            answers = _answers(model, prompts, where.device, streamed=streamed, batch_tokens=WITHOUT_LIMIT)
    finally:
        logging.getLogger("producer").removeHandler(log_lines)
    halvings = [line for line in log_lines.lines if line.startswith("out of memory")]
    measured = Measured({"halvings": len(halvings), "last": halvings[-1] if halvings else "none"})
    measured.require(bool(halvings), "memory did not run out, so nothing was tried")
    measured.at_most("largest difference", largest_difference(answers, undisturbed), SAME)
    return measured


def _answers(model: Any, prompts: Any, device: str, *, streamed: bool, batch_tokens: int) -> Answers:
    import torch

    plan = MemoryPlan(streamed, batch_tokens, WITHOUT_LIMIT, device, head_rows=4096, concurrent_tokens=WITHOUT_LIMIT)
    return prefill(model, prompts, range(6), plan, Target(device, torch.float32), lambda _: None)


@contextmanager
def _scarce(device: str, left: int) -> Iterator[None]:
    """Leave only so many bytes free inside the `with` block: the rest of a GPU is filled; on a CPU the process may not grow further."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        filled = torch.empty(torch.cuda.mem_get_info(device)[0] - left, dtype=torch.uint8, device=device)
        try:
            yield
        finally:
            del filled
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


class _LogLines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
