"""Layer-major figures of the bench: SmolLM2 through a tenth of its weights, and on a GPU the layouts of 8B and 70B models."""

import argparse
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from producer.encode import Prompts, encode
from producer.engine.accounting import throughput
from producer.engine.layers import Target
from producer.engine.memory import measure_needs, plan_memory
from producer.engine.prefill import Answers, prefill
from producer.models import AS_STORED, find_model, load_model, load_tokenizer
from producer.option_tokens import option_tokens
from producer.settings import Settings
from producer.tasks.source import draw, load_task

SHARE = 0.10
MOST_CHANGE, MOST_TIME = 1e-5, 1.3
GIB = 2**30
POLL_S = 0.002


class Shape(NamedTuple):
    """A Llama layout; its weights are random, since speed does not depend on their values."""

    name: str
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    budget: int  # bytes of device memory, 0 for all of it


SHAPES = (
    Shape("8B", 4096, 14336, 32, 32, 8, 0),
    Shape("70B", 8192, 28672, 80, 64, 8, 24 * GIB),
)


class _Ran(NamedTuple):
    answers: Answers
    batch_tokens: int


def layer_major_figures(arguments: argparse.Namespace) -> None:
    """Print how layer-major order within a tenth of the weights compares with all weights in memory."""
    files = find_model("smollm2-135m")
    tokenizer, task = load_tokenizer(files), draw(load_task("mmlu", arguments.data), arguments.limit, 0)
    options = option_tokens(tokenizer, 6).ids
    whole = load_model(files, "float32", "cpu")
    prompts = encode(tokenizer, "", task.demonstrations, task.items, whole.config.max_position_embeddings)
    budget = int(SHARE * sum(p.numel() * 4 for p in whole.parameters()))
    usual, seconds, _ = _run(whole, prompts, options, Settings())
    small, slower, peak = _run(load_model(files, AS_STORED, "cpu"), prompts, options, Settings(device_memory=budget))
    same_batches = _run(whole, prompts, options, Settings(batch_tokens=small.batch_tokens))[0]
    changes = [float(np.abs(other.logits - small.answers.logits).max()) for other in (same_batches.answers, usual.answers)]
    print(f"layer-major in {budget / 2**20:.0f} MiB: largest logit change {changes[0]:.1e} (limit {MOST_CHANGE:.0e}); ", end="")
    print(f"{changes[1]:.1e} against batches of {usual.batch_tokens} tokens instead of {small.batch_tokens}")
    print(f"    {slower:.1f} s against {seconds:.1f} s in memory: {slower / seconds:.2f} times (limit {MOST_TIME})")
    print(f"    peak memory above the start {peak / 2**20:.0f} MiB, waiting hidden states included")


def gpu_figures(arguments: argparse.Namespace) -> None:
    """Print the share of the bf16 matrix peak for 8B in memory and 70B through 24 GB, where there is a GPU."""
    import torch

    if not torch.cuda.is_available():
        print("no GPU here: 8B and 70B layouts not measured")
        return
    print(torch.cuda.get_device_name())
    for shape in SHAPES:
        print(shape_figures(shape, "cuda:0", n_items=2000, n_prefix=500, n_own=120))


def shape_figures(shape: Shape, device: str, *, n_items: int, n_prefix: int, n_own: int) -> str:
    """Return a line with the rate a layout reaches on a device, over random tokens."""
    import torch

    target = Target(device, torch.bfloat16)
    model = random_model(shape, "cpu" if shape.budget else device)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, model.config.vocab_size, (n_items, n_own)).tolist()
    prompts = Prompts(tuple(rng.integers(0, model.config.vocab_size, n_prefix).tolist()), ids, [False] * n_items)
    needs = measure_needs(model, target.dtype, n_prefix)
    layout = plan_memory(needs, device, Settings(device_memory=shape.budget), loaded=not shape.budget)
    clock = time.perf_counter()
    answers = prefill(model, prompts, range(6), layout, target, lambda _: None)
    rates = throughput(model, prompts, target, time.perf_counter() - clock, answers.padding)
    order = "layer-major" if layout.streamed else "in memory"
    return f"{shape.name} layout, {order}: {rates['items_per_s']:.1f} items/s, {rates['share_of_peak']:.0%} of the measured bf16 peak"


def random_model(shape: Shape, device: str) -> Any:
    """Return a model of this layout. On the host all layers share one layer's weights, or 70B would need 140 GB there."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=128256, hidden_size=shape.hidden, intermediate_size=shape.inner, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, max_position_embeddings=8192,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    shared: dict[str, Any] = {}
    for name, parameter in list(model.named_parameters()):
        layer, _, rest = name.removeprefix("model.layers.").partition(".")
        key = rest if name.startswith("model.layers.") and device == "cpu" and layer else name
        if key not in shared:
            shared[key] = torch.randn(parameter.shape, dtype=torch.bfloat16, device=device) * 0.02
        _put(model, name, torch.nn.Parameter(shared[key], requires_grad=False))
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(device)
    return model.eval()


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Yield a list whose only value ends as the most anonymous memory this process held above what it held at the start."""
    start, peak, over = _anonymous(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(POLL_S):
            peak[0] = max(peak[0], _anonymous() - start)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def _run(model: Any, prompts: Prompts, options: tuple[int, ...], settings: Settings) -> tuple[_Ran, float, int]:
    import torch

    target = Target("cpu", torch.float32)
    layout = plan_memory(measure_needs(model, target.dtype, len(prompts.prefix)), "cpu", settings, loaded=not settings.device_memory)
    with peak_memory() as peak:
        clock = time.perf_counter()
        answers = prefill(model, prompts, options, layout, target, lambda _: None)
        seconds = time.perf_counter() - clock
    return _Ran(answers, layout.batch_tokens), seconds, peak[0]


def _put(model: Any, name: str, parameter: Any) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, parameter)


def _anonymous() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")))
