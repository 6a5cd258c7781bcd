"""SparseGPT: prune column by column, and adjust the remaining columns to compensate for the error. The kernel is llm-compressor's."""

from typing import Any

from producer.methods.shared.contract import DATA, Job
from producer.methods.shared.linear_layers import kept_layers
from producer.methods.shared.llm_compressor import ROUTED, FromRoutedTokens, oneshot
from producer.methods.shared.sparsity import pattern_zeros, pruned_of, pruning_method
from schemas.errors import PostConditionError
from schemas.levels import Level

DAMPENING = 0.01  # added to the Hessian's diagonal, as a share of its mean
BLOCK = 128  # number of columns whose weights are ranked together
TIES = 0.001  # accepted excess as a share of a matrix: the kernel prunes all weights tied at the threshold, and 16-bit weights often tie


def sparsegpt(model: Any, job: Job) -> Any:
    """Return the model with every target layer pruned against the inverse Hessian of its inputs."""
    return oneshot(model, lambda: [sparsegpt_modifier(model, job.level)], job.data, job.device, job.finished)


def sparsegpt_modifier(model: Any, level: Level) -> Any:
    """Return llm-compressor's modifier, changed to prune as many weights as the level says, and to raise if a Hessian is singular.

    The inputs of a layer that are zero for all compression data are recorded as `layer.dead_inputs`; the kernel zeroes their columns.
    """
    import torch
    from llmcompressor.modifiers.pruning.sparsegpt import SparseGPTModifier
    from llmcompressor.modifiers.pruning.sparsegpt.sgpt_sparsify import sparsify_weight

    class ExactSparseGPT(FromRoutedTokens, SparseGPTModifier):  # type: ignore[misc]
        """SparseGPT that prunes an exact number of weights and raises if it cannot use a Hessian."""

        @torch.no_grad()
        def compress_modules(self) -> None:
            """Prune the layers whose inputs have been measured."""
            layers: list[Any] = list(self._num_samples)
            for layer in layers:
                layer.register_buffer("dead_inputs", self._hessians[layer].diagonal() == 0, persistent=False)
                require_invertible(self._hessians[layer], self._module_names[layer])
                share = _share_for_kernel(layer.weight, level)
                pattern = level.of - level.kept, level.of  # both 0 unless the level is n:m
                _, weight = sparsify_weight(layer, self._hessians, share, *pattern, block_of(level), DAMPENING, False)
                layer.weight.copy_(weight)
                del self._num_samples[layer]

    return ExactSparseGPT(sparsity=level.fraction, targets=["Linear"], ignore=kept_layers(model))


def block_of(level: Level) -> int:
    """Return how many columns are ranked together: a multiple of m for an n:m level, because no group of m may span two blocks."""
    return BLOCK - BLOCK % level.of if level.kind == "pattern" else BLOCK


def require_invertible(hessian: Any, name: str) -> None:
    """Raise PostConditionError if a Hessian is singular; the kernel itself would only warn and prune without it."""
    import torch

    dead = hessian.diagonal() == 0
    damped = hessian + torch.diag(dead.to(hessian.dtype) + DAMPENING * (hessian.diagonal() + dead.to(hessian.dtype)).mean())
    if int(torch.linalg.cholesky_ex(damped).info):
        raise PostConditionError(f"the Hessian of {name} cannot be inverted; give more compression data")


def expected_zeros(weight: Any, level: Level) -> int:
    """Return how many weights of a matrix a level prunes: the same share of every block of columns."""
    if level.kind == "pattern":
        return pattern_zeros(weight, level)
    if level.fraction == 0:
        return 0
    rows, columns, share = weight.shape[0], weight.shape[1], _share_for_kernel(weight, level)
    widths = [min(BLOCK, columns - start) for start in range(0, columns, BLOCK)]
    return sum(int(rows * width * share) + 1 for width in widths)


def _share_for_kernel(weight: Any, level: Level) -> float:
    """Return the share for which the kernel prunes exactly `pruned_of` weights: it truncates share * size and prunes one weight more."""
    block_size = weight.shape[0] * min(BLOCK, weight.shape[1])
    return (pruned_of(block_size, level) - 0.5) / block_size


METHOD = pruning_method(
    name="sparsegpt",
    paper="Frantar and Alistarh 2023, arXiv:2301.00774",
    needs=DATA,
    prune=sparsegpt,
    expected_zeros=expected_zeros,
    settings_for=lambda level: {"dampening": DAMPENING, "block": block_of(level), "experts": ROUTED},
    ties=TIES,
)
