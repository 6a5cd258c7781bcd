"""Wanda: in every row the weights with the smallest |weight| * ||input|| go. Norms and ranking are llm-compressor's.

The norms are taken once, on the dense model, and serve every level; the paper takes them again behind each pruned layer.
"""

from typing import Any

from producer.methods.base import DATA, Job, Method
from producer.methods.layers import split_experts, target_layers
from producer.methods.layout import MODELS
from producer.methods.sparsity import SPARSITY_LEVELS, accepts_sparsity, fits_pattern, is_identity, pruned_of, verify_zeros
from producer.methods.upstream import oneshot
from schemas.levels import Level


def collect_norms(model: Any, data: Any, seed: int) -> dict[str, Any]:
    """Return the mean squared input of every target layer by name, (column,) float32; every expert sees every token."""
    norms: dict[str, Any] = {}

    def recipe() -> list[Any]:
        from llmcompressor.modifiers.pruning.wanda import WandaPruningModifier

        class CollectNorms(WandaPruningModifier):
            """Wanda up to its statistics: it prunes nothing, so one pass over the dense model serves every level."""

            def compress_modules(self) -> None:
                """Hand the sums over by name."""
                norms.update({self._module_names[m].rstrip("."): self._row_scalars[m].cpu() for m in self._num_samples})
                self._num_samples.clear()
                self._row_scalars.clear()

        return [CollectNorms(sparsity=0.0, targets=["Linear"], ignore=["re:.*lm_head"])]

    oneshot(split_experts(model), recipe, data)
    return norms


def wanda(model: Any, job: Job) -> Any:
    """Return the model with the least important weights of every row set to zero."""
    import torch
    from llmcompressor.modifiers.pruning.wanda.wanda_sparsify import sparsify_weight

    for name, layer in target_layers(split_experts(model)).items():
        if is_identity(job.level):
            continue
        pruned, of = (job.level.of - job.level.kept, job.level.of) if job.level.kind == "pattern" else (0, 0)
        # The kernel truncates columns * sparsity, and 0.29 * 100 is 28.999..., so it is given the middle of the step that we mean.
        sparsity = (pruned_of(layer.weight.shape[1], job.level) + 0.5) / layer.weight.shape[1]
        with torch.no_grad():
            norms = {layer: job.statistics[name].to(layer.weight.device)}
            layer.weight.copy_(sparsify_weight(layer, norms, sparsity, pruned, of))
    return model


def expected_zeros(weight: Any, level: Level) -> int:
    """Return how many weights of a matrix a level prunes: the same number in every row."""
    if level.kind == "pattern":
        return int(weight.numel() // level.of * (level.of - level.kept))
    return int(weight.shape[0] * pruned_of(weight.shape[1], level))


METHOD = Method(
    name="wanda",
    kind="unstructured / n:m",
    paper="Sun et al. 2024, arXiv:2306.11695",
    default_level="0.5",
    levels=SPARSITY_LEVELS,
    needs=DATA,
    models=MODELS,
    compress=wanda,
    settings_for=lambda level: {"ranked_within": "m neighbours" if level.kind == "pattern" else "row", "input_norms": "dense model"},
    accepts=accepts_sparsity,
    fits=fits_pattern,
    verify=verify_zeros(expected_zeros),
    collect=collect_norms,
)
