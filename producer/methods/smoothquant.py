"""SmoothQuant: move activation outliers into the weights, then round both. Smoothing is llm-compressor's, rounding is simulated."""

from typing import Any

from producer.methods.shared.architectures import MODELS, is_moe
from producer.methods.shared.contract import DATA, Job, Method
from producer.methods.shared.llm_compressor import oneshot, split_experts
from producer.methods.shared.quantization import (
    ACTIVATION_LEVELS,
    accepts_activations,
    fits_groups,
    quantization_settings,
    scheme,
    simulate_rounding,
    verify_grid,
)
from schemas.levels import Level

SMOOTHING = 0.5


def smoothquant(model: Any, job: Job) -> Any:
    """Return the model with smoothed and rounded target layers, their inputs rounded per token."""

    def recipe() -> list[Any]:
        from llmcompressor.modifiers.quantization import QuantizationModifier

        return [smoothing_modifier(model), QuantizationModifier(**scheme(job.level))]

    return simulate_rounding(oneshot(split_experts(model), recipe, job.data, job.device), job.level)


def smoothing_modifier(model: Any) -> Any:
    """Return llm-compressor's modifier for both norms of a layer; the router reads the second one and is balanced too."""
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    mlp = ["re:.*mlp.gate$"] if is_moe(model.config) else []
    mappings = [
        (["re:.*q_proj$", "re:.*k_proj$", "re:.*v_proj$"], "re:.*input_layernorm$"),
        ([*mlp, "re:.*gate_proj$", "re:.*up_proj$"], "re:.*post_attention_layernorm$"),
    ]
    return SmoothQuantModifier(smoothing_strength=SMOOTHING, mappings=mappings, ignore=["lm_head"])


def settings_for(level: Level) -> dict[str, Any]:
    """Return what a SmoothQuant run records."""
    return quantization_settings(level) | {"smoothing": SMOOTHING}


METHOD = Method(
    name="smoothquant",
    kind="weight + activation, simulated",
    paper="Xiao et al. 2023, arXiv:2211.10438",
    default_level="w8a8",
    levels=ACTIVATION_LEVELS,
    needs=DATA,
    models=MODELS,
    compress=smoothquant,
    settings_for=settings_for,
    accepts=accepts_activations,
    fits=fits_groups,
    verify=verify_grid,
)
