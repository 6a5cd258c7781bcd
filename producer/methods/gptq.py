"""GPTQ: quantize column by column and let the columns to come make up for the error. Made by llm-compressor."""

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
from schemas.errors import PostConditionError
from schemas.levels import Level

DAMPENING, BLOCK = 0.01, 128


def gptq(model: Any, job: Job) -> Any:
    """Return the model with every target layer quantized against the inverse Hessian of its inputs."""
    return simulate_rounding(oneshot(split_experts(model), lambda: [gptq_modifier(job.level)], job.data, job.device), job.level)


def gptq_modifier(level: Level) -> Any:
    """Return llm-compressor's modifier; where a Hessian cannot be inverted it raises instead of rounding to nearest."""
    from llmcompressor.modifiers.gptq import GPTQModifier

    class StrictGPTQ(GPTQModifier):
        """GPTQ on every layer or not at all."""

        def _log_rtn_fallback_summary(self) -> None:
            if names := self._rtn_fallback_module_names:
                others = f" (and {len(names) - 1} others)" if len(names) > 1 else ""
                raise PostConditionError(f"the Hessian of {names[0]}{others} cannot be inverted; give more compression data")

    return StrictGPTQ(**scheme(level), block_size=BLOCK, dampening_frac=DAMPENING, actorder="static")


def settings_for(level: Level) -> dict[str, Any]:
    """Return what a GPTQ run records."""
    order = "by Hessian diagonal, groups as they lie"
    return quantization_settings(level) | {"dampening": DAMPENING, "block": BLOCK, "column_order": order}


METHOD = Method(
    name="gptq",
    kind="weight-only",
    paper="Frantar et al. 2023, arXiv:2210.17323",
    default_level="w4a16-g128",
    levels=WEIGHT_LEVELS,
    needs=DATA,
    models=MODELS,
    compress=gptq,
    settings_for=settings_for,
    accepts=accepts_weights,
    fits=fits_groups,
    verify=verify_grid,
)
