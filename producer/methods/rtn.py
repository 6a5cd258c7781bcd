"""RTN: round every weight to the nearest point of its grid, without looking at data. Made by llm-compressor."""

from typing import Any

from producer.methods.shared.architectures import MODELS
from producer.methods.shared.contract import NOTHING, Job, Method
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


def round_to_nearest(model: Any, job: Job) -> Any:
    """Return the model with every target weight on its grid."""

    def recipe() -> list[Any]:
        from llmcompressor.modifiers.quantization import QuantizationModifier

        return [QuantizationModifier(**scheme(job.level))]

    return simulate_rounding(oneshot(split_experts(model), recipe), job.level)


METHOD = Method(
    name="rtn",
    kind="weight-only",
    paper="Nagel et al. 2021, arXiv:2106.08295",
    default_level="w4a16-g128",
    levels=WEIGHT_LEVELS,
    needs=NOTHING,
    models=MODELS,
    compress=round_to_nearest,
    settings_for=quantization_settings,
    accepts=accepts_weights,
    fits=fits_groups,
    verify=verify_grid,
)
