"""SliceGPT: turn the residual stream of every half layer into its principal axes and cut the weakest ones off.

The axes are those of the dense model's normalised signals, taken once, so one collection serves every level; the paper takes them
again behind each sliced layer. In a mixture of experts every expert and the router read the same cut stream, and none is dropped.
Source: Ashkboos et al. 2024, arXiv:2401.15024, sections 3.2 to 3.4.
"""

from typing import Any, NamedTuple

from producer.methods.base import DATA, Job, Method
from producer.methods.layers import split_experts, token_batches
from producer.methods.layout import MODELS, unknown_layout
from producer.methods.structure import (
    attention_readers,
    attention_writers,
    fuse_norms,
    mlp_readers,
    mlp_writers,
    replace_weight,
)
from producer.methods.structured import STRUCTURED_LEVELS, accepts_fraction, count_weights, left_over
from schemas.errors import PostConditionError
from schemas.levels import Level


class Statistics(NamedTuple):
    """Principal axes (hidden, hidden) float64, strongest first, of every norm's output; and the decoder weights before."""

    axes: list[Any]
    decoder_weights: int


def collect_axes(model: Any, data: Any, seed: int) -> Statistics:
    """Return the axes of the inputs of every attention, every MLP and the head, in the order of the forward pass."""
    import torch

    norms = [norm for layer in model.model.layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
    norms.append(model.model.norm)
    sums: dict[Any, Any] = {}

    def add(norm: Any, arguments: tuple[Any, ...]) -> None:
        x = arguments[0].detach().flatten(0, -2).float()
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.variance_epsilon)
        sums[norm] = sums.get(norm, 0) + x.T @ x

    hooks = [norm.register_forward_pre_hook(add) for norm in norms]
    with torch.no_grad():
        for ids in token_batches(data):
            model.model(input_ids=ids.to(model.device), use_cache=False)
    for hook in hooks:
        hook.remove()
    axes = [torch.linalg.eigh(sums.pop(norm).double()).eigenvectors.flip(1).cpu() for norm in norms]
    return Statistics(axes, count_weights(model))


def slicegpt(model: Any, job: Job) -> Any:
    """Return the model with every half layer's residual stream in its principal axes, the weakest cut off."""
    from producer.methods.sliced_layer import SlicedLayer

    model = split_experts(model)
    fuse_norms(model)
    width = sliced_width(model.config, job.level)
    turns = [axes[:, :width].to(model.device) for axes in job.statistics.axes]
    replace_weight(model.model.embed_tokens, model.model.embed_tokens.weight.detach().double() @ turns[0])
    for number, layer in enumerate(model.model.layers):
        entry, middle, leave = turns[2 * number : 2 * number + 3]
        cut_half(layer.input_layernorm, attention_readers(layer), attention_writers(layer), entry, middle)
        cut_half(layer.post_attention_layernorm, mlp_readers(layer), mlp_writers(layer), middle, leave)
        shortcuts = [(entry.T @ middle).to(model.dtype), (middle.T @ leave).to(model.dtype)]
        model.model.layers[number] = SlicedLayer(layer, *shortcuts)
    cut_half(model.model.norm, [model.lm_head], [], turns[-1], turns[-1])
    return model


def cut_half(norm: Any, readers: list[Any], writers: list[Any], entry: Any, leave: Any) -> None:
    """Let readers take the stream in the axes `entry`, writers add to it in the axes `leave`: (hidden, width) each."""
    for reader in readers:
        replace_weight(reader, reader.weight.detach().double() @ entry)
    for writer in writers:
        bias = None if writer.bias is None else writer.bias.detach().double() @ leave
        replace_weight(writer, leave.T @ writer.weight.detach().double(), bias)
    narrow_norm(norm, *entry.shape)


def narrow_norm(norm: Any, hidden: int, width: int) -> None:
    """Let a norm of `width` channels divide by the mean over `hidden`: what was cut off counts as zero, not as missing."""
    replace_weight(norm, norm.weight.detach()[:width].clone().fill_((hidden / width) ** 0.5))
    norm.variance_epsilon *= hidden / width


def sliced_width(config: Any, level: Level) -> int:
    """Return how many channels of the residual stream stay."""
    return round(config.hidden_size * (1 - level.fraction))


def fits(config: Any, level: Level) -> str:
    """Return why a model cannot be sliced at a level, or ""."""
    too_much = sliced_width(config, level) < 1 if not unknown_layout(config) else False
    return unknown_layout(config) or ("nothing of its residual stream would be left" if too_much else "")


def verify_slices(model: Any, job: Job) -> dict[str, Any]:
    """Return the width left and the share of decoder weights removed (shortcut matrices count as weights).

    Raises PostConditionError where a layer has another width.
    """
    width = sliced_width(model.config, job.level)
    for number, layer in enumerate(model.model.layers):
        found = {reader.weight.shape[1] for reader in attention_readers(layer) + mlp_readers(layer)}
        found |= {writer.weight.shape[0] for writer in attention_writers(layer) + mlp_writers(layer)}
        if found != {width}:
            raise PostConditionError(f"decoder layer {number} reads and writes a stream of width {sorted(found)} instead of {width}")
    return {"stream_width": width} | left_over(model, job.statistics.decoder_weights)


METHOD = Method(
    name="slicegpt",
    kind="structured",
    paper="Ashkboos et al. 2024, arXiv:2401.15024",
    default_level="0.2",
    levels=STRUCTURED_LEVELS,
    needs=DATA,
    models=MODELS,
    compress=slicegpt,
    settings_for=lambda level: {"signals": "dense model, normalised"},
    accepts=accepts_fraction,
    fits=fits,
    verify=verify_slices,
    collect=collect_axes,
)
