"""Wanda: set the weights with the smallest |weight| * ||input|| in every row to zero. The kernel is llm-compressor's.

As in the paper, the inputs of a decoder layer are the outputs of the layers already pruned, so their norms differ from level to level.
(With norms of the dense model, measured once for all levels, ref-s at 0.5 ends up farther from dense: KL 0.124 instead of 0.114 nats.)
"""

from typing import Any

from producer.methods.shared.contract import DATA, Job
from producer.methods.shared.linear_layers import kept_layers
from producer.methods.shared.llm_compressor import ROUTED, FromRoutedTokens, oneshot
from producer.methods.shared.sparsity import pattern_zeros, pruned_of, pruning_method
from schemas.levels import Level


def wanda(model: Any, job: Job) -> Any:
    """Return the model with the least important weights of every row set to zero."""
    return oneshot(model, lambda: [wanda_modifier(model, job.level)], job.data, job.device, job.finished)


def wanda_modifier(model: Any, level: Level) -> Any:
    """Return llm-compressor's modifier, changed to prune exactly as many weights as the level says."""
    import torch
    from llmcompressor.modifiers.pruning.wanda import WandaPruningModifier
    from llmcompressor.modifiers.pruning.wanda.wanda_sparsify import sparsify_weight

    pattern = level.of - level.kept, level.of  # both 0 unless the level is n:m

    class ExactWanda(FromRoutedTokens, WandaPruningModifier):  # type: ignore[misc]
        """Wanda that prunes `pruned_of` weights in every row."""

        @torch.no_grad()
        def compress_modules(self) -> None:
            """Prune the layers whose inputs have been measured."""
            layers: list[Any] = list(self._num_samples)
            for layer in layers:
                # The kernel truncates columns * share, and 0.29 * 100 is 28.999..., so half a weight is added.
                share = (pruned_of(layer.weight.shape[1], level) + 0.5) / layer.weight.shape[1]
                layer.weight.copy_(sparsify_weight(layer, self._row_scalars, share, *pattern))
                del self._num_samples[layer]

    return ExactWanda(sparsity=level.fraction, targets=["Linear"], ignore=kept_layers(model))


def expected_zeros(weight: Any, level: Level) -> int:
    """Return how many weights of a matrix a level prunes: the same number in every row."""
    return pattern_zeros(weight, level) if level.kind == "pattern" else int(weight.shape[0] * pruned_of(weight.shape[1], level))


def settings_for(level: Level) -> dict[str, Any]:
    """Return the settings that a Wanda run records."""
    ranked_within = "m neighbours" if level.kind == "pattern" else "row"
    return {"ranked_within": ranked_within, "input_norms": "behind pruned layers", "experts": ROUTED}


METHOD = pruning_method(
    name="wanda",
    paper="Sun et al. 2024, arXiv:2306.11695",
    needs=DATA,
    prune=wanda,
    expected_zeros=expected_zeros,
    settings_for=settings_for,
)
