"""SmoothQuant: move outliers from activations into weights, then round both. Implemented by llm-compressor; activations simulated."""

from typing import Any

from producer.methods.shared.architectures import is_moe
from producer.methods.shared.contract import DATA, Job
from producer.methods.shared.quantization import WEIGHTS_AND_ACTIVATIONS, quantization_settings, quantize, scheme
from schemas.levels import Level

SMOOTHING = 0.5  # the paper's alpha: the share of an outlier's magnitude that moves into the weights


def smoothquant(model: Any, job: Job) -> Any:
    """Return the model with smoothed and rounded target layers, whose inputs are rounded per token."""

    def recipe() -> list[Any]:
        from llmcompressor.modifiers.quantization import QuantizationModifier

        return [smoothing_modifier(model), QuantizationModifier(**scheme(model, job.level))]

    return quantize(model, recipe, job)


def smoothing_modifier(model: Any) -> Any:
    """Return llm-compressor's modifier for both norms of a layer, and for the router, because it reads the second norm's output."""
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    mlp = ["re:.*mlp.gate$"] if is_moe(model.config) else []
    mappings = [
        (["re:.*q_proj$", "re:.*k_proj$", "re:.*v_proj$"], "re:.*input_layernorm$"),
        ([*mlp, "re:.*gate_proj$", "re:.*up_proj$"], "re:.*post_attention_layernorm$"),
    ]
    return SmoothQuantModifier(smoothing_strength=SMOOTHING, mappings=mappings, ignore=["lm_head"])


def settings_for(level: Level) -> dict[str, Any]:
    """Return the settings that a SmoothQuant run records."""
    return quantization_settings(level) | {"smoothing": SMOOTHING}


METHOD = WEIGHTS_AND_ACTIVATIONS(
    name="smoothquant",
    paper="Xiao et al. 2023, arXiv:2211.10438",
    default_level="w8a8",
    needs=DATA,
    compress=smoothquant,
    settings_for=settings_for,
)
