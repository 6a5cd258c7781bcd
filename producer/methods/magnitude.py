"""Magnitude pruning: set the weights with the smallest absolute values in every matrix to zero. Needs no data."""

from typing import Any

from producer.methods.shared.contract import NOTHING, Job
from producer.methods.shared.layerwise import on_device
from producer.methods.shared.linear_layers import target_layers
from producer.methods.shared.sparsity import prune_smallest, pruned_of, pruning_method
from schemas.levels import Level


def magnitude(model: Any, job: Job) -> Any:
    """Return the model with the smallest weights of every target layer set to zero; a fraction ranks the whole matrix."""
    for layer in target_layers(model).values():
        with on_device(layer, job.device):
            weight = layer.weight.data
            weight = weight if job.level.kind == "pattern" else weight.view(1, -1)
            prune_smallest(weight, weight.abs(), job.level)
    return model


def expected_zeros(weight: Any, level: Level) -> int:
    """Return how many weights of a matrix a level prunes."""
    return pruned_of(weight.numel(), level)


METHOD = pruning_method(
    name="magnitude",
    paper="Han et al. 2015, arXiv:1506.02626",
    needs=NOTHING,
    prune=magnitude,
    expected_zeros=expected_zeros,
    settings_for=lambda level: {"ranked_within": "m neighbours" if level.kind == "pattern" else "matrix"},
)
