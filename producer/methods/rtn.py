"""RTN: round every weight to the nearest point of its grid, without data. Implemented by llm-compressor."""

from typing import Any

from producer.methods.shared.contract import NOTHING, Job
from producer.methods.shared.quantization import WEIGHT_ONLY, quantization_settings, quantize, scheme


def round_to_nearest(model: Any, job: Job) -> Any:
    """Return the model with every target weight on its grid."""

    def recipe() -> list[Any]:
        from llmcompressor.modifiers.quantization import QuantizationModifier

        return [QuantizationModifier(**scheme(job.level))]

    return quantize(model, recipe, job)


METHOD = WEIGHT_ONLY(
    name="rtn",
    paper="Nagel et al. 2021, arXiv:2106.08295",
    needs=NOTHING,
    compress=round_to_nearest,
    settings_for=quantization_settings,
)
