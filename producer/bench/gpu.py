"""Measure on a GPU which share of the bf16 peak an 8B model reaches, and run a 70B model within 24 GB of device memory.

The weights are random, since speed does not depend on their values. The tests run the same functions on a CPU with tiny models.
"""

import argparse
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from producer.engine.layer_source import Target
from producer.engine.memory_needs import measure_needs
from producer.engine.memory_plan import plan_memory
from producer.engine.prefill import prefill
from producer.engine.settings import Settings
from producer.engine.throughput import matrix_peak, throughput
from producer.prompts.encode import Prompts

GIB = 2**30
N_ITEMS, N_PREFIX, N_OWN = 2000, 500, 120  # about MMLU with five demonstrations


class Shape(NamedTuple):
    """Sizes of a Llama model; `budget` is the device memory it may use in bytes, 0 for all."""

    name: str
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    budget: int
    least_share: float


SHAPES = (
    Shape("8B", 4096, 14336, 32, 32, 8, 0, 0.50),
    Shape("70B", 8192, 28672, 80, 64, 8, 24 * GIB, 0.0),
)


def gpu(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield one line per model, or a line that says that there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        yield "models of 8B and 70B: not run, they need a GPU and there is none here"
        return
    device = arguments.device if arguments.device.startswith("cuda") else "cuda:0"
    yield torch.cuda.get_device_name(device)
    for shape in SHAPES:
        yield shape_line(shape, device, random_prompts(arguments.items or N_ITEMS, N_PREFIX, N_OWN))


def shape_line(shape: Shape, device: str, prompts: Prompts) -> str:
    """Return the rate, the share of the matrix peak and the peak memory that a model of this shape reaches on a device."""
    rates = run_shape(shape, random_model(shape, "cpu" if shape.budget else device, device), device, prompts)
    order = f"layer-major within {shape.budget / GIB:.1f} GiB" if shape.budget else "in memory"
    target_share = f" (target: at least {shape.least_share:.0%})" if shape.least_share else ""
    taken = f"; most device memory {rates['peak_memory_bytes'] / GIB:.1f} GiB" if device.startswith("cuda") else ""
    speed = f"{rates['items_per_s']:.1f} items/s, {rates['tokens_per_s']:,.0f} tokens/s"
    return f"{shape.name} model, {order}: {speed}, {rates['share_of_peak']:.0%} of the measured bf16 peak{target_share}{taken}"


def run_shape(shape: Shape, model: Any, device: str, prompts: Prompts) -> dict[str, float]:
    """Return what answering all prompts with a model of a shape took: seconds, rates and share of the matrix peak; memory on a GPU.

    peak_memory_bytes, reserved_memory_bytes : most memory in tensors, and most that the allocator held for them.
    """
    import torch

    target = Target(device, torch.bfloat16)
    plan = plan_memory(measure_needs(model, target.dtype, prompts), device, Settings(device_memory=shape.budget), loaded=not shape.budget)
    matrix_peak(target)  # measured before the clock starts; it also warms the GPU up
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    clock = time.perf_counter()
    answers = prefill(model, prompts, range(6), plan, target, lambda _: None)
    seconds = time.perf_counter() - clock
    memory = {"peak_memory_bytes": torch.cuda.max_memory_allocated, "reserved_memory_bytes": torch.cuda.max_memory_reserved}
    rates = {"seconds": seconds, **throughput(model, prompts, target, seconds, answers.padding)}
    return rates | {name: float(measure(device)) for name, measure in memory.items() if on_gpu}


def random_prompts(n_items: int, n_prefix: int, n_own: int) -> Prompts:
    """Return prompts of random tokens."""
    rng = np.random.default_rng(0)
    return Prompts(tuple(rng.integers(0, 1000, n_prefix).tolist()), rng.integers(0, 1000, (n_items, n_own)).tolist(), [False] * n_items)


def random_model(shape: Shape, home: str, drawn_on: str = "cpu") -> Any:
    """Return a model of this shape with random weights. On the host all layers share one layer's weights, else 70B would need 140 GB.

    drawn_on : device that draws the numbers; a CPU would take a minute for 70B.
    """
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
        key = rest if name.startswith("model.layers.") and home == "cpu" and layer else name
        if key not in shared:
            shared[key] = (torch.randn(parameter.shape, dtype=torch.bfloat16, device=drawn_on) * 0.02).to(home)
        _put(model, name, torch.nn.Parameter(shared[key], requires_grad=False))
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(home)
    return model.eval()


def _put(model: Any, name: str, parameter: Any) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, parameter)
