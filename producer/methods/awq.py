"""AWQ: scale the input channels that carry large activations, then round to nearest. Made by llm-compressor."""

from typing import Any

from producer.methods.shared.architectures import MODELS
from producer.methods.shared.contract import DATA, Job, Method
from producer.methods.shared.llm_compressor import oneshot, split_experts
from producer.methods.shared.quantization import (
    WEIGHT_LEVELS,
    accepts_weights,
    fits_groups,
    quantization_settings,
    scheme,
    simulate_rounding,
    verify_grid,
)
from schemas.levels import Level

GRID = 20


def awq(model: Any, job: Job) -> Any:
    """Return the model with scaled and rounded target layers; the scales are searched over a grid that holds "no scaling"."""

    def recipe() -> list[Any]:
        from llmcompressor.modifiers.quantization import QuantizationModifier
        from llmcompressor.modifiers.transform.awq import AWQModifier

        return [AWQModifier(n_grid=GRID, duo_scaling=True), QuantizationModifier(**scheme(job.level))]

    return simulate_rounding(oneshot(split_experts(model), recipe, job.data, job.device), job.level)


def settings_for(level: Level) -> dict[str, Any]:
    """Return what an AWQ run records."""
    return quantization_settings(level) | {"scale_grid": GRID, "scales_from": "activations and weights"}


METHOD = Method(
    name="awq",
    kind="weight-only",
    paper="Lin et al. 2024, arXiv:2306.00978",
    default_level="w4a16-g128",
    levels=WEIGHT_LEVELS,
    needs=DATA,
    models=MODELS,
    compress=awq,
    settings_for=settings_for,
    accepts=accepts_weights,
    fits=fits_groups,
    verify=verify_grid,
)
