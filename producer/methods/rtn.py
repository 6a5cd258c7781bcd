"""RTN: round every weight to the nearest point of its grid. Implemented by llm-compressor.

It needs no data, but for formats whose activations have a scale that is fixed beforehand (w8a8-fp8-static, nvfp4).
"""

from typing import Any

from producer.methods.shared.contract import NOTHING, Job
from producer.methods.shared.quantization import ANY_FORMAT, calibrated, quantization_settings, quantize, scheme


def round_to_nearest(model: Any, job: Job) -> Any:
    """Return the model with every target weight on its grid."""

    def recipe() -> list[Any]:
        from llmcompressor.modifiers.quantization import QuantizationModifier

        return [QuantizationModifier(**scheme(model, job.level))]

    return quantize(model, recipe, job)


METHOD = ANY_FORMAT(
    name="rtn",
    paper="Nagel et al. 2021, arXiv:2106.08295",
    needs=NOTHING,
    needs_at=calibrated,
    compress=round_to_nearest,
    settings_for=quantization_settings,
)
