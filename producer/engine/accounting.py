"""What a run cost and what the device could have done: items, tokens and operations a second, share of the matrix peak.

In: a model, prompts, seconds.  Out: named numbers. Only operations on unique tokens count: a shared token once, padding never.
"""

import time
from functools import cache
from typing import Any

from producer.encode import Prompts
from producer.engine.layers import Target, synchronize

PEAK_SIZE = {"cpu": 1024, "other": 8192}
PEAK_SECONDS = 0.3


def throughput(model: Any, prompts: Prompts, target: Target, seconds: float, padding: float) -> dict[str, float]:
    """Return items, tokens and floating-point operations per second, the peak measured here, and the share of it reached."""
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
    """Return the multiplications and additions that the answers need: linear layers, attention, one row of the head per item."""
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
    """Return the operations per second of the best of some square matrix products on this device in this dtype."""
    import torch

    size = PEAK_SIZE.get(target.device, PEAK_SIZE["other"])
    left = torch.randn(size, size, device=target.device).to(target.dtype)
    best, start = float("inf"), time.perf_counter()
    while time.perf_counter() - start < PEAK_SECONDS:
        synchronize(target.device)
        clock = time.perf_counter()
        left @ left
        synchronize(target.device)
        best = min(best, time.perf_counter() - clock)
    return 2.0 * size**3 / best


def _active(layer: Any, config: Any) -> float:
    """Return the weights of a layer that each token meets; of an expert's weights, the share of tokens routed to it."""
    experts = getattr(config, "num_experts", 0) or getattr(config, "num_local_experts", 0) or 1
    routed = getattr(config, "num_experts_per_tok", 0) / experts
    return sum(p.numel() * (routed if ".experts." in name else 1.0) for name, p in layer.named_parameters() if p.ndim >= 2)


def _query_width(layer: Any) -> int:
    return int(layer.self_attn.q_proj.weight.shape[0])
