"""AWQ: scale the input channels that carry large activations, then round to nearest. Implemented by llm-compressor."""

from typing import Any

from producer.methods.shared.architectures import LLAMA_MODELS
from producer.methods.shared.contract import DATA, Job
from producer.methods.shared.quantization import WEIGHT_ONLY, fits_scaling, quantization_settings, quantize, scheme
from schemas.levels import Level

GRID = 20  # number of scales tried for each group of layers, one of which is no scaling


def awq(model: Any, job: Job) -> Any:
    """Return the model with scaled and rounded target layers."""

    def recipe() -> list[Any]:
        from llmcompressor.modifiers.quantization import QuantizationModifier
        from llmcompressor.modifiers.transform.awq import AWQModifier

        return [AWQModifier(n_grid=GRID, duo_scaling=True), QuantizationModifier(**scheme(model, job.level))]

    return quantize(model, recipe, job)


def settings_for(level: Level) -> dict[str, Any]:
    """Return the settings that an AWQ run records."""
    return quantization_settings(level) | {"scale_grid": GRID, "scales_from": "activations and weights"}


METHOD = WEIGHT_ONLY(
    name="awq",
    paper="Lin et al. 2024, arXiv:2306.00978",
    needs=DATA,
    fits=fits_scaling,
    models=LLAMA_MODELS,
    compress=awq,
    settings_for=settings_for,
)
