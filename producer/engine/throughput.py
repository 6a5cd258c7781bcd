"""Speed of a run: items, tokens and floating-point operations per second, and the share of the device's peak.

In: a model, prompts, seconds.  Out: named numbers. Only useful operations count: those of a shared token once, those of padding
not at all. The peak is that of a matrix product, measured on the same device.
"""

import time
import timeit
from functools import cache
from typing import Any

import numpy as np

from producer.engine.layer_source import Target, synchronize
from producer.prompts.encode import Prompts

PEAK_SIZES = {"cpu": (256, 1024), "other": (1024, 8192)}  # smallest and largest matrix
PEAK_SECONDS = 0.1  # for each size
NUMPY_SIZE = 512


def throughput(model: Any, prompts: Prompts, target: Target, seconds: float, padding: float) -> dict[str, float]:
    """Return items, tokens and floating-point operations per second, the peak measured on this device, and the share of it reached."""
    rate = unique_flops(model, prompts) / seconds
    peak = matrix_peak(target)
    return {
        "items_per_s": len(prompts.suffixes) / seconds,
        "tokens_per_s": prompts.tokens / seconds,
        "flops_per_s": rate,
        "peak_flops_per_s": peak,
        "share_of_peak": rate / peak,
        "padding": padding,
    }


def unique_flops(model: Any, prompts: Prompts) -> float:
    """Return the floating-point operations that the answers need: linear layers, attention, and the head once per item."""
    layers = model.model.layers
    linear = sum(_active(layer, model.config) for layer in layers)
    attention = sum(_query_width(layer) for layer in layers)
    n_prefix = len(prompts.prefix)
    pairs = n_prefix**2 / 2
    for suffix, cut in zip(prompts.suffixes, prompts.cut, strict=True):
        pairs += len(suffix) * (n_prefix * (not cut) + len(suffix) / 2)
    return 2.0 * prompts.tokens * linear + 4.0 * attention * pairs + 2.0 * len(prompts.suffixes) * model.lm_head.weight.numel()


@cache
def matrix_peak(target: Target) -> float:
    """Return the floating-point operations per second of the fastest square matrix product on this device in this dtype."""
    size, largest = PEAK_SIZES.get(target.device, PEAK_SIZES["other"])
    best, seconds = 0.0, 0.0
    _fastest_product(size, target)  # a GPU's first product loads its library, which took 0.15 s: the search then ended at the smallest size
    while size <= largest and seconds < PEAK_SECONDS:  # on a CPU without float16 arithmetic one product of size 1,024 takes nearly a minute
        seconds = _fastest_product(size, target)
        best = max(best, 2.0 * size**3 / seconds)
        size *= 2
    return best


@cache
def numpy_peak() -> float:
    """Return an estimate of this CPU's peak in float32 without torch, by a product of numpy's; it takes a few hundredths of a second."""
    matrix = np.random.default_rng(0).standard_normal((NUMPY_SIZE, NUMPY_SIZE), np.float32)
    return 2.0 * NUMPY_SIZE**3 / min(timeit.repeat(lambda: matrix @ matrix, number=1, repeat=5))


def _fastest_product(size: int, target: Target) -> float:
    import torch

    matrix = torch.randn(size, size, device=target.device).to(target.dtype)
    best, start = float("inf"), time.perf_counter()
    while time.perf_counter() - start < PEAK_SECONDS:
        synchronize(target.device)
        clock = time.perf_counter()
        matrix @ matrix
        synchronize(target.device)
        best = min(best, time.perf_counter() - clock)
    return best


def _active(layer: Any, config: Any) -> float:
    """Return how many of a layer's weights each token uses; experts' weights count by the share of experts that a token is routed to."""
    experts = getattr(config, "num_experts", 0) or getattr(config, "num_local_experts", 0) or 1
    routed = getattr(config, "num_experts_per_tok", 0) / experts
    return sum(weight.numel() * (routed if ".experts." in name else 1.0) for name, weight in layer.named_parameters() if weight.ndim >= 2)


def _query_width(layer: Any) -> int:
    return int(layer.self_attn.q_proj.weight.shape[0])
