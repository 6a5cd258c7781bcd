"""AWQ: scale the input channels that carry large activations, then clip the weights of every group, then round to nearest.

Scales are searched by llm-compressor, which leaves out the clipping that the paper's results have. Of every group of weights those are
clipped whose magnitude exceeds a share of the group's largest one. The share is searched: the one for which rounding changes what the group
adds to the layer's output least, in the mean of squares over a sample of tokens. Queries and keys are not clipped, as what matters there is
their product.
Source: Lin et al. 2024, arXiv:2306.00978, section 3.2 for the scales; grid, sample and the layers left out are those of its authors' code.
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from producer.methods.shared.architectures import LLAMA_MODELS
from producer.methods.shared.contract import DATA, Job
from producer.methods.shared.linear_layers import target_layers
from producer.methods.shared.llm_compressor import advance_before
from producer.methods.shared.method_options import Option, words
from producer.methods.shared.quantization import WEIGHT_ONLY, fits_scaling, quantization_settings, quantize, rounded_weight, scheme
from schemas.levels import Level

GRID = 20  # number of scales tried for each group of layers, one of which is no scaling
CLIP = {"grid": 20, "max_shrink": 0.5, "tokens": 512}  # shares 1, 19/20, ... above 1 - max_shrink; tokens of the sample at least
NOT_CLIPPED = ("q_proj", "k_proj")


def awq(model: Any, job: Job) -> Any:
    """Return the model with scaled, clipped and rounded target layers."""
    sample = _Sample(sum(map(len, job.data.input_ids)) if job.data else 0, job.level, job.settings["clip"])

    def recipe() -> list[Any]:
        from llmcompressor.modifiers.quantization import QuantizationModifier
        from llmcompressor.modifiers.transform.awq import AWQModifier

        class ClippingAWQ(AWQModifier):
            """AWQ that clips the weights of a decoder layer when it has scaled them."""

            def on_sequential_epoch_end(self, state: Any, event: Any, modules: Collection[Any] = (), **others: Any) -> None:
                """Scale, then clip."""
                super().on_sequential_epoch_end(state, event, modules=modules, **others)
                if sample.clip:
                    clip_layers(_clipped(state.model, modules), sample)

        return [ClippingAWQ(n_grid=GRID, duo_scaling=True), QuantizationModifier(**scheme(model, job.level))]

    return quantize(model, recipe, job)


class _Sample:
    """Which tokens of the compression data the clipping is searched on, and how."""

    def __init__(self, n_tokens: int, level: Level, clip: Any) -> None:
        self.level, self.clip = level, clip
        self.every = max(1, n_tokens // clip["tokens"]) if clip else 1


def _clipped(model: Any, modules: Collection[Any]) -> list[Any]:
    chosen = set(modules)
    return [layer for name, layer in target_layers(model).items() if layer in chosen and not name.endswith(NOT_CLIPPED)]


def clip_layers(layers: list[Any], sample: _Sample) -> None:
    """Clip the weights of the current decoder layer's linear layers, in place; the next decoder layer sees what they gave before."""
    moments: dict[Any, Any] = {}
    seen = dict.fromkeys(layers, 0)

    def add(layer: Any, arguments: tuple[Any, ...]) -> None:
        x = arguments[0].detach().flatten(0, -2)
        chosen = x[-seen[layer] % sample.every :: sample.every].float()
        seen[layer] += len(x)
        groups = chosen.unflatten(-1, (-1, sample.level.group_size or x.shape[-1])).transpose(0, 1)
        moments[layer] = moments.get(layer, 0) + groups.transpose(1, 2) @ groups

    advance_before(layers, add)
    for layer, sums in moments.items():
        weight = layer.weight.detach()
        limit = best_limit(weight, sums, partial(rounded_weight, level=sample.level), sample.clip)
        layer.weight.data = weight.unflatten(-1, (len(sums), -1)).clamp(-limit, limit).flatten(1).to(weight.dtype)


def best_limit(weight: Any, moments: Any, rounded: Callable[[Any], Any], clip: dict[str, Any]) -> Any:
    """Return the magnitude at which the weights of each group are clipped, (row, group, 1).

    weight  : (row, column).
    moments : (group, column in the group, column in the group) sum over tokens of the products of two inputs.
    rounded : weight -> weight on the grid.
    """
    import torch

    groups = weight.unflatten(-1, (len(moments), -1))
    largest = groups.abs().amax(-1, keepdim=True)
    best, lowest = largest, torch.full(largest.shape, float("inf"), device=weight.device)
    for step in range(int(clip["max_shrink"] * clip["grid"])):
        limit = largest * (1 - step / clip["grid"])
        change = (rounded(groups.clamp(-limit, limit).flatten(1)).unflatten(-1, (len(moments), -1)) - groups).float().transpose(0, 1)
        error = ((change @ moments) * change).sum(-1).T.unsqueeze(-1)
        best, lowest = torch.where(error < lowest, limit, best), torch.minimum(error, lowest)
    return best


def settings_for(level: Level) -> dict[str, Any]:
    """Return the settings that an AWQ run records."""
    return quantization_settings(level) | {"scale_grid": GRID, "scales_from": "activations and weights"}


METHOD = WEIGHT_ONLY(
    name="awq",
    paper="Lin et al. 2024, arXiv:2306.00978",
    needs=DATA,
    fits=fits_scaling,
    models=LLAMA_MODELS,
    compress=awq,
    settings_for=settings_for,
    options={
        "clip": Option("how weights are clipped before rounding [search]", "search or none", words(search=CLIP, none={}), lambda *_: CLIP)
    },
)
