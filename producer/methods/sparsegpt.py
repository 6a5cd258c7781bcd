"""SparseGPT: prune column by column and let the columns to come make up for the error. The kernel is llm-compressor's."""

from typing import Any

from producer.methods.shared.architectures import MODELS
from producer.methods.shared.contract import DATA, Job, Method
from producer.methods.shared.llm_compressor import oneshot, split_experts
from producer.methods.shared.sparsity import SPARSITY_LEVELS, accepts_sparsity, fits_pattern, is_identity, pruned_of, verify_zeros
from schemas.errors import PostConditionError
from schemas.levels import Level

DAMPENING, BLOCK = 0.01, 128


def sparsegpt(model: Any, job: Job) -> Any:
    """Return the model with every target layer pruned against the inverse Hessian of its inputs."""
    model = split_experts(model)
    return model if is_identity(job.level) else oneshot(model, lambda: [sparsegpt_modifier(job.level)], job.data, job.device)


def sparsegpt_modifier(level: Level) -> Any:
    """Return llm-compressor's modifier, made to prune exactly what the level says, or raise where a Hessian cannot be inverted."""
    import torch
    from llmcompressor.modifiers.pruning.sparsegpt import SparseGPTModifier
    from llmcompressor.modifiers.pruning.sparsegpt.sgpt_sparsify import sparsify_weight

    class ExactSparseGPT(SparseGPTModifier):
        """SparseGPT on every layer or not at all."""

        @torch.no_grad()
        def compress_modules(self) -> None:
            """Prune the layers whose inputs have been seen."""
            layers: list[Any] = list(self._num_samples)
            for layer in layers:
                require_invertible(self._hessians[layer], self._module_names[layer])
                share = _share_for_kernel(layer.weight, level)
                of, pruned = (level.of, level.of - level.kept) if level.kind == "pattern" else (0, 0)
                _, weight = sparsify_weight(layer, self._hessians, share, pruned, of, block_of(level), DAMPENING, False)
                layer.weight.copy_(weight)
                del self._num_samples[layer]

    return ExactSparseGPT(sparsity=level.fraction, targets=["Linear"], ignore=["re:.*lm_head"])


def block_of(level: Level) -> int:
    """Return how many columns are ranked together; whole groups of an n:m level, which the kernel starts afresh in every block."""
    return BLOCK - BLOCK % level.of if level.kind == "pattern" else BLOCK


def require_invertible(hessian: Any, name: str) -> None:
    """Raise PostConditionError where the kernel would silently prune without a Hessian."""
    import torch

    dead = hessian.diagonal() == 0
    damped = hessian + torch.diag(dead.to(hessian.dtype) + DAMPENING * (hessian.diagonal() + dead.to(hessian.dtype)).mean())
    if int(torch.linalg.cholesky_ex(damped).info):
        raise PostConditionError(f"the Hessian of {name} cannot be inverted; give more compression data")


def expected_zeros(weight: Any, level: Level) -> int:
    """Return how many weights of a matrix a level prunes: the same share of every block of columns."""
    if level.kind == "pattern":
        return int(weight.numel() // level.of * (level.of - level.kept))
    if is_identity(level):
        return 0
    rows, columns, share = weight.shape[0], weight.shape[1], _share_for_kernel(weight, level)
    widths = [min(BLOCK, columns - start) for start in range(0, columns, BLOCK)]
    return sum(int(rows * width * share) + 1 for width in widths)


def _share_for_kernel(weight: Any, level: Level) -> float:
    """Return the share that makes the kernel prune the number we mean: it prunes one weight more than it truncates to."""
    together = weight.shape[0] * min(BLOCK, weight.shape[1])
    return (pruned_of(together, level) - 0.5) / together


METHOD = Method(
    name="sparsegpt",
    kind="unstructured / n:m",
    paper="Frantar and Alistarh 2023, arXiv:2301.00774",
    default_level="0.5",
    levels=SPARSITY_LEVELS,
    needs=DATA,
    models=MODELS,
    compress=sparsegpt,
    settings_for=lambda level: {"dampening": DAMPENING, "block": block_of(level)},
    accepts=accepts_sparsity,
    fits=fits_pattern,
    verify=verify_zeros(expected_zeros),
)
