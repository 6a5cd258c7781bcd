"""What magnitude, Wanda and SparseGPT share: accepted levels, the number of weights to prune, and the check that they were pruned.

The number of weights to prune is rounded to the nearest integer within each part that a method ranks together (a matrix, a row, a block of
columns). Weights that are zero in the dense model (removed neurons, columns for inputs that are always zero) count as pruned.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from producer.methods.shared.architectures import undivided, unknown_architecture
from producer.methods.shared.contract import Job, Method
from producer.methods.shared.linear_layers import target_layers
from schemas.errors import PostConditionError
from schemas.levels import Level

Expected = Callable[[Any, Level], int]


def pruning_method(  # noqa: PLR0913  # what differs from one pruning method to the next
    *,
    name: str,
    paper: str,
    needs: str,
    prune: Callable[[Any, Job], Any],
    expected_zeros: Expected,
    settings_for: Callable[[Level], Mapping[str, Any]],
    ties: float = 0.0,
) -> Method:
    """Return a method that sets single weights to zero.

    prune          : (model, job) -> model; called for levels above 0, on a model whose experts are linear layers.
    expected_zeros : (weight, level) -> the smallest number of zeros that a matrix must have.
    ties           : how far that number may be exceeded because of weights with equal importance, as a share of the matrix.
    """
    return Method(
        name=name,
        kind="unstructured / n:m",
        paper=paper,
        default_level="0.5",
        levels="a fraction in [0, 1), or n:m such as 2:4 (n of every m weights of a row kept)",
        needs=needs,
        compress=partial(_compress, prune),
        settings_for=settings_for,
        accepts=accepts_sparsity,
        fits=fits_pattern,
        verify=partial(_verify, expected_zeros, ties),
    )


def accepts_sparsity(level: Level) -> str:
    """Return why a pruning method cannot take a level, or ""."""
    return "" if level.kind in ("sparsity", "pattern") else "it is not a share of the weights"


def fits_pattern(config: Any, level: Level) -> str:
    """Return why a model cannot be pruned to a level (unknown model type, an n:m whose m does not divide a layer), or ""."""
    return unknown_architecture(config) or (undivided(config, level.of) if level.kind == "pattern" else "")


def pruned_of(total: int, level: Level) -> int:
    """Return how many of `total` weights that are ranked together a level prunes."""
    return round(total * level.fraction)


def pattern_zeros(weight: Any, level: Level) -> int:
    """Return how many weights of a matrix an n:m level prunes."""
    return int(weight.numel() // level.of * (level.of - level.kept))


def prune_smallest(weight: Any, importance: Any, level: Level) -> None:
    """Set the least important weights to zero, in place; of equally important weights in a row, the first is pruned first.

    weight, importance : (row, column). An n:m level ranks every m neighbouring weights, a fraction ranks the row.
    """
    if level.kind == "pattern":
        weight, importance = weight.reshape(-1, level.of), importance.reshape(-1, level.of)
    pruned = level.of - level.kept if level.kind == "pattern" else pruned_of(importance.shape[1], level)
    if not pruned:
        return
    last = importance.kthvalue(pruned, dim=1, keepdim=True).values  # sorting would take several times as long
    below, equal = importance < last, importance == last
    ties = equal & (equal.cumsum(1) <= pruned - below.sum(1, keepdim=True))
    weight.masked_fill_(below | ties, 0.0)


def keeps_pattern(weight: Any, level: Level) -> bool:
    """Return whether at most n of every m neighbouring weights in a row are not zero."""
    return bool(((weight.reshape(-1, level.of) != 0).sum(dim=1) <= level.kept).all())


def _compress(prune: Callable[[Any, Job], Any], model: Any, job: Job) -> Any:
    """Return the pruned model; `model.zeros_before` keeps the positions of the dense model's zeros for `_verify`."""
    model.zeros_before = {name: _packed(layer.weight == 0) for name, layer in target_layers(model).items()}
    identity = job.level.kind == "sparsity" and job.level.fraction == 0
    return model if identity else prune(model, job)


def _verify(expected_zeros: Expected, ties: float, model: Any, job: Job) -> dict[str, Any]:
    """Return the exact sparsity in total, by decoder layer, and of the least and most pruned matrix, and the model's bytes with a bit mask.

    weights_pruned : number of weights that are zero now and were not zero in the dense model.

    Raises PostConditionError if a matrix has fewer zeros than its level promises, or if more weights than that were newly set to zero.
    Columns for inputs that are always zero do not count for the second check: SparseGPT clears them too, which changes no output.
    """
    by_layer: dict[str, list[int]] = {}
    shares, newly = [], 0
    for name, layer in target_layers(model).items():
        zero, total = layer.weight == 0, layer.weight.numel()
        zeros, expected = int(zero.sum()), expected_zeros(layer.weight, job.level)
        if zeros < expected or (job.level.kind == "pattern" and not keeps_pattern(layer.weight, job.level)):
            raise PostConditionError(f"layer {name} at level {job.level.text!r} has {zeros} of {total} weights zero, not {expected}")
        pruned = int((zero & ~_unpacked(model.zeros_before[name], zero) & ~_dead_columns(layer, zero)).sum())
        if pruned > expected + ties * total:
            raise PostConditionError(f"layer {name} at level {job.level.text!r} lost {pruned} of {total} weights, more than {expected}")
        newly += pruned
        number = next(part for part in name.split(".") if part.isdigit())
        sums = by_layer.setdefault(number, [0, 0])
        by_layer[number] = [sums[0] + zeros, sums[1] + total]
        shares.append(zeros / total)
    all_zeros, all_weights = (sum(sums[index] for sums in by_layer.values()) for index in (0, 1))
    n_others = sum(parameter.numel() for parameter in model.parameters()) - all_weights
    return {
        "sparsity": all_zeros / all_weights,
        "weights_pruned": newly,
        "sparsity_by_decoder_layer": [zeros / total for zeros, total in by_layer.values()],
        "sparsity_lowest": min(shares),
        "sparsity_highest": max(shares),
        "bytes": 2 * (n_others + all_weights - all_zeros) + (all_weights // 8 if all_zeros else 0),
    }


def _packed(mask: Any) -> Any:
    """Return a boolean matrix as bits, since a mask with one byte per weight would take half as much memory as the model."""
    return np.packbits(mask.cpu().numpy())


def _unpacked(bits: Any, like: Any) -> Any:
    import torch

    mask = np.unpackbits(bits, count=like.numel()).astype(np.bool_)
    return torch.from_numpy(mask).to(like.device).view(like.shape)


def _dead_columns(layer: Any, zero: Any) -> Any:
    """Return (column,) whether a column's input was zero for all compression data; false everywhere if the method does not record this."""
    import torch

    dead = getattr(layer, "dead_inputs", None)
    return torch.zeros(zero.shape[1], dtype=torch.bool, device=zero.device) if dead is None else dead.to(zero.device)
