"""Wanda: in every row the weights with the smallest |weight| * ||input|| go. The kernel is llm-compressor's.

The norms of a decoder layer are taken behind the layers already pruned, as in the paper, so every level has norms of its own.
(Norms of the dense model, taken once for all levels, left ref-s at 0.5 farther from dense: KL 0.124 against 0.114 nats.)
"""

from typing import Any

from producer.methods.shared.architectures import MODELS
from producer.methods.shared.contract import DATA, Job, Method
from producer.methods.shared.llm_compressor import oneshot, split_experts
from producer.methods.shared.sparsity import SPARSITY_LEVELS, accepts_sparsity, fits_pattern, is_identity, pruned_of, verify_zeros
from schemas.levels import Level


def wanda(model: Any, job: Job) -> Any:
    """Return the model with the least important weights of every row set to zero; every expert sees every token."""
    model = split_experts(model)
    return model if is_identity(job.level) else oneshot(model, lambda: [wanda_modifier(job.level)], job.data, job.device)


def wanda_modifier(level: Level) -> Any:
    """Return llm-compressor's modifier, made to prune exactly what the level says."""
    import torch
    from llmcompressor.modifiers.pruning.wanda import WandaPruningModifier
    from llmcompressor.modifiers.pruning.wanda.wanda_sparsify import sparsify_weight

    pruned, of = (level.of - level.kept, level.of) if level.kind == "pattern" else (0, 0)

    class ExactWanda(WandaPruningModifier):
        """Wanda on the nearest whole number of weights in a row."""

        @torch.no_grad()
        def compress_modules(self) -> None:
            """Prune the layers whose inputs have been seen."""
            layers: list[Any] = list(self._num_samples)
            for layer in layers:
                # The kernel truncates columns * share, and 0.29 * 100 is 28.999..., so it is given the middle of the step that we mean.
                share = (pruned_of(layer.weight.shape[1], level) + 0.5) / layer.weight.shape[1]
                layer.weight.copy_(sparsify_weight(layer, self._row_scalars, share, pruned, of))
                del self._num_samples[layer]

    return ExactWanda(sparsity=level.fraction, targets=["Linear"], ignore=["re:.*lm_head"])


def expected_zeros(weight: Any, level: Level) -> int:
    """Return how many weights of a matrix a level prunes: the same number in every row."""
    if level.kind == "pattern":
        return int(weight.numel() // level.of * (level.of - level.kept))
    return int(weight.shape[0] * pruned_of(weight.shape[1], level))


def settings_for(level: Level) -> dict[str, Any]:
    """Return what a Wanda run records."""
    return {"ranked_within": "m neighbours" if level.kind == "pattern" else "row", "input_norms": "behind pruned layers"}


METHOD = Method(
    name="wanda",
    kind="unstructured / n:m",
    paper="Sun et al. 2024, arXiv:2306.11695",
    default_level="0.5",
    levels=SPARSITY_LEVELS,
    needs=DATA,
    models=MODELS,
    compress=wanda,
    settings_for=settings_for,
    accepts=accepts_sparsity,
    fits=fits_pattern,
    verify=verify_zeros(expected_zeros),
)
