"""GPTQ: quantize column by column, and adjust the remaining columns to compensate for the error. Implemented by llm-compressor."""

from collections.abc import Mapping
from typing import Any

from producer.methods.shared.contract import DATA, Job
from producer.methods.shared.llm_compressor import ROUTED, FromRoutedTokens
from producer.methods.shared.quantization import ANY_FORMAT, calibrated, quantization_settings, quantize, scheme
from schemas.errors import PostConditionError
from schemas.levels import Level

DAMPENING = 0.01  # added to the Hessian's diagonal, as a share of its mean
BLOCK = 128  # number of columns whose errors are compensated together


def gptq(model: Any, job: Job) -> Any:
    """Return the model with every target layer quantized against the inverse Hessian of its inputs."""
    return quantize(model, lambda: [gptq_modifier(model, job.level)], job)


def gptq_modifier(model: Any, level: Level, weight_clip: Mapping[str, Any] | None = None) -> Any:
    """Return the modifier that quantizes every layer of a model to a level.

    weight_clip : how the range of the weights' grids is searched, see `scheme`.

    At a level that fixes the scale of activations beforehand, every expert sees every token, so that no expert is left without a scale.
    """
    return strict_gptq(scheme(model, level, weight_clip), routed=not calibrated(level))


def strict_gptq(arguments: Mapping[str, Any], *, routed: bool) -> Any:
    """Return llm-compressor's modifier, changed to raise PostConditionError if a Hessian cannot be inverted.

    arguments : which layers it quantizes to what, as the library's modifiers take it.
    routed    : whether an expert's Hessian comes from the tokens that are routed to it.

    The library itself would round the weights of such a layer to nearest and only log a summary.
    """
    from llmcompressor.modifiers.gptq import GPTQModifier

    bases = (FromRoutedTokens, GPTQModifier) if routed else (GPTQModifier,)

    class StrictGPTQ(*bases):  # type: ignore[misc]
        """GPTQ that raises instead of rounding a layer to nearest."""

        def compress_modules(self) -> None:
            """Quantize the layers whose inputs have been measured; raise before one that was rounded to nearest counts as finished."""
            super().compress_modules()
            self._log_rtn_fallback_summary()

        def _log_rtn_fallback_summary(self) -> None:
            if names := self._rtn_fallback_module_names:
                others = f" (and {len(names) - 1} others)" if len(names) > 1 else ""
                raise PostConditionError(f"the Hessian of {names[0]}{others} cannot be inverted; give more compression data")

    return StrictGPTQ(**arguments, block_size=BLOCK, dampening_frac=DAMPENING, actorder="static")


def settings_for(level: Level) -> dict[str, Any]:
    """Return the settings that a GPTQ run records."""
    order = "by Hessian diagonal, groups as they lie"
    return quantization_settings(level) | {"dampening": DAMPENING, "block": BLOCK, "column_order": order, **experts_of(level)}


def experts_of(level: Level) -> dict[str, str]:
    """Return the setting that says which tokens an expert's Hessian comes from."""
    return {} if calibrated(level) else {"experts": ROUTED}


METHOD = ANY_FORMAT(
    name="gptq",
    paper="Frantar et al. 2023, arXiv:2210.17323",
    needs=DATA,
    compress=gptq,
    settings_for=settings_for,
)
