"""Speed as a share of the peak: useful operations per second over those of the fastest matrix product, measured just before or after."""

import argparse
import statistics
from collections.abc import Iterator
from functools import partial

from producer.bench.cases import Case, cases
from producer.bench.rates import answer, timed
from producer.engine.layer_source import Target
from producer.engine.throughput import matrix_peak, unique_flops

LEAST_SHARE = 0.60  # of SmolLM2 in float32
MORE_ITEMS = 8  # times as many items as in the part `rates`, because the shared prefix hardly counts in real runs of thousands of items


def share(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield speed and share of the peak of the selected cases, by default those with demonstrations, in float32 and bfloat16."""
    arguments = argparse.Namespace(**{**vars(arguments), "shots": arguments.shots or ["few-shot"]})
    for dtype in ("float32", "bfloat16"):
        for case in cases(arguments, dtype, MORE_ITEMS):
            yield case if isinstance(case, str) else _share(case, arguments, dtype)


def _share(case: Case, arguments: argparse.Namespace, dtype: str) -> str:
    target = Target(arguments.device, case.model.dtype)
    flops, rates, peaks = unique_flops(case.model, case.prompts), [], []
    before = matrix_peak.__wrapped__(target)
    for _ in range(arguments.rounds):
        rates.append(flops / timed(partial(answer, case, arguments.device), arguments.clock)[0])
        after = matrix_peak.__wrapped__(target)
        peaks.append(max(before, after))
        before = after
    shares = sorted(rate / peak for rate, peak in zip(rates, peaks, strict=True))
    least = f" (target: at least {LEAST_SHARE:.0%})" if case.name.startswith("smollm2") and dtype == "float32" else ""
    median = f"{statistics.median(shares):.0%} ({shares[0]:.0%} to {shares[-1]:.0%})"
    speed = f"{statistics.median(rates) / 1e9:,.0f} of {statistics.median(peaks) / 1e9:,.0f} GFLOP/s on unique tokens"
    return f"{case.name} in {dtype}, {len(case.texts)} items: {speed}: {median} of the matrix peak{least}"
