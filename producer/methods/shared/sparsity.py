"""Pruning single weights, shared by magnitude, Wanda and SparseGPT: accepted levels, how many go, and the check that they went.

How many weights go is rounded to the nearest integer over what a method ranks at once (a matrix, a row, a block of columns).
"""

from collections.abc import Callable
from typing import Any

from producer.methods.shared.architectures import undivided, unknown_architecture
from producer.methods.shared.contract import Job
from producer.methods.shared.linear_layers import target_layers
from schemas.errors import PostConditionError
from schemas.levels import Level

SPARSITY_LEVELS = "a fraction in [0, 1), or n:m such as 2:4 (n of every m weights of a row kept)"
NATURAL_ZEROS = 0.01  # share of weights that may be zero beyond the level: some dense models have dead weights


def accepts_sparsity(level: Level) -> str:
    """Return why a pruning method cannot take a level, or ""."""
    return "" if level.kind in ("sparsity", "pattern") else "it is not a share of the weights"


def fits_pattern(config: Any, level: Level) -> str:
    """Return why a model cannot be pruned at a level (unknown layout, a pattern whose m does not divide a layer), or ""."""
    return unknown_architecture(config) or (undivided(config, level.of) if level.kind == "pattern" else "")


def is_identity(level: Level) -> bool:
    """Whether a level prunes nothing."""
    return level.kind == "sparsity" and level.fraction == 0


def pruned_of(total: int, level: Level) -> int:
    """Return how many of `total` weights, ranked together, a level prunes."""
    return round(total * level.fraction)


def prune_smallest(weight: Any, importance: Any, level: Level) -> None:
    """Set the least important weights of every row of `importance` to zero, in place; ties go in the order of their index.

    weight, importance : (row, column). An n:m level ranks every m neighbours, a fraction ranks the row.
    """
    if level.kind == "pattern":
        weight, importance = weight.reshape(-1, level.of), importance.reshape(-1, level.of)
    pruned = level.of - level.kept if level.kind == "pattern" else pruned_of(importance.shape[1], level)
    if not pruned:
        return
    last = importance.kthvalue(pruned, dim=1, keepdim=True).values  # sorting takes several times as long
    below, equal = importance < last, importance == last
    ties = equal & (equal.cumsum(1) <= pruned - below.sum(1, keepdim=True))
    weight.masked_fill_(below | ties, 0.0)


def verify_zeros(expected: Callable[[Any, Level], int]) -> Callable[[Any, Job], dict[str, Any]]:
    """Return a check that every target layer has the zeros its level promises.

    expected : (weight, level) -> zeros of one layer.
    The check returns exact sparsity in total, per decoder layer, of the least and most pruned layer, and the bytes left with a bit mask.
    """

    def verify(model: Any, job: Job) -> dict[str, Any]:
        by_layer: dict[str, list[int]] = {}
        shares = []
        for name, layer in target_layers(model).items():
            zeros, wanted, total = int((layer.weight == 0).sum()), expected(layer.weight, job.level), layer.weight.numel()
            broken = job.level.kind == "pattern" and not keeps_pattern(layer.weight, job.level)
            if broken or zeros < wanted or zeros > wanted + NATURAL_ZEROS * total:
                raise PostConditionError(f"layer {name} at level {job.level.text!r} has {zeros} of {total} weights zero, not {wanted}")
            sums = by_layer.setdefault(name.split(".")[2], [0, 0])
            by_layer[name.split(".")[2]] = [sums[0] + zeros, sums[1] + total]
            shares.append(zeros / total)
        zeros, total = (sum(sums[i] for sums in by_layer.values()) for i in (0, 1))
        kept = sum(p.numel() for p in model.parameters()) - total
        return {
            "sparsity": zeros / total,
            "sparsity_by_decoder_layer": [z / t for z, t in by_layer.values()],
            "sparsity_lowest": min(shares),
            "sparsity_highest": max(shares),
            "bytes": 2 * (kept + total - zeros) + (total // 8 if zeros else 0),
        }

    return verify


def keeps_pattern(weight: Any, level: Level) -> bool:
    """Whether at most n of every m neighbours in every row are not zero."""
    return bool(((weight.reshape(-1, level.of) != 0).sum(dim=1) <= level.kept).all())
