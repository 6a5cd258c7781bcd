"""SliceGPT: rotate the residual stream before every attention and every MLP into its principal axes, and remove the weakest ones.

The axes are those of the dense model's normalised hidden states, computed once for all levels; the paper computes them anew after slicing
each layer. In a mixture of experts every expert and the router read the same narrower stream, and no expert is removed. The last MLP writes
the stream in its full width again, which the head reads whole, as in the authors' code; `head=sliced` narrows that as well.
Source: Ashkboos et al. 2024, arXiv:2401.15024, sections 3.2 to 3.4.
"""

from typing import Any, NamedTuple

from producer.methods.shared.architectures import is_moe, other_layers
from producer.methods.shared.contract import DATA, Job
from producer.methods.shared.float64_transform import require_same_function, transform
from producer.methods.shared.layerwise import layer_inputs
from producer.methods.shared.linear_layers import probe_tokens, token_batches
from producer.methods.shared.method_options import Option, words
from producer.methods.shared.residual_stream import (
    attention_readers,
    attention_writers,
    fuse,
    fuse_norms,
    mlp_readers,
    mlp_writers,
    replace_weight,
)
from producer.methods.shared.structured import STRUCTURED, count_weights, left_over
from schemas.errors import PostConditionError
from schemas.levels import Level

WHOLE, SLICED = "whole", "sliced"


class Statistics(NamedTuple):
    """Statistics of the dense model.

    axes            : principal axes of every norm's output, (hidden, hidden) float64, strongest first, in the order of the forward pass.
    decoder_weights : number of weights in all decoder layers.
    """

    axes: list[Any]
    decoder_weights: int


def collect_axes(model: Any, data: Any, device: Any = None) -> Statistics:
    """Return the principal axes of the inputs of every attention, every MLP and the head, in the order of the forward pass."""
    import torch

    sums: dict[Any, Any] = {}

    def add(norm: Any, signals: Any) -> None:
        x = signals.flatten(0, -2).float()
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.variance_epsilon)
        sums[norm] = sums.get(norm, 0) + x.T @ x

    layers, axes = model.model.layers, list[Any]()
    norms = [norm for layer in layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
    hooks = [norm.register_forward_pre_hook(lambda norm, arguments: add(norm, arguments[0])) for norm in norms]
    hooks.append(layers[-1].register_forward_hook(lambda _, __, signals: add(model.model.norm, signals)))
    with torch.no_grad():
        for _, run in layer_inputs(model, token_batches(data), device):
            run(advance=True)
            axes += map(_axes, sums.values())  # in the order of the forward pass
            sums.clear()
    for hook in hooks:
        hook.remove()
    return Statistics(axes, count_weights(model))


def slicegpt(model: Any, job: Job) -> Any:
    """Return the model with its residual stream in its principal axes, without the weakest axes."""
    width = sliced_width(model.config, job.level)
    slicing = Slicing(job.statistics.axes, width, head_width(model.config, job))
    change = transform(model, slicing, probe_tokens(model, job.data), job.device)
    if job.level.fraction == 0:
        require_same_function(change, "rotating into the principal axes")
    return model


class Slicing(NamedTuple):
    """Fuses the norms and narrows the stream to `width`, and to `head_width` behind the last layer.

    A `producer.methods.shared.float64_transform.Transformation`.
    """

    axes: list[Any]
    width: int
    head_width: int

    def embedding(self, embedding: Any) -> None:
        """Write the embeddings in the axes of the first attention."""
        replace_weight(embedding, embedding.weight @ self._axes_at(0, embedding))

    def layer(self, number: int, layer: Any) -> Any:
        """Return the layer with attention and MLP each in its own axes, and a change of basis on both residual connections."""
        from producer.methods.shared.sliced_layer import SlicedLayer

        fuse_norms(layer)
        entry, middle, leave = (self._axes_at(2 * number + i, layer.input_layernorm) for i in range(3))
        narrow(layer.input_layernorm, attention_readers(layer), attention_writers(layer), entry, middle)
        narrow(layer.post_attention_layernorm, mlp_readers(layer), mlp_writers(layer), middle, leave)
        return SlicedLayer(layer, entry.T @ middle, middle.T @ leave)

    def head(self, norm: Any, head: Any) -> None:
        """Make the head read the stream in the axes of the last norm."""
        axes = self._axes_at(-1, head)
        fuse(norm, [head])
        narrow(norm, [head], [], axes, axes)

    def _axes_at(self, number: int, module: Any) -> Any:
        number %= len(self.axes)
        width = self.head_width if number == len(self.axes) - 1 else self.width
        return self.axes[number][:, :width].to(module.weight.device)


def narrow(norm: Any, readers: list[Any], writers: list[Any], entry: Any, leave: Any) -> None:
    """Make readers read the stream in the axes `entry`, and writers add to it in the axes `leave`, (hidden, width) each."""
    for reader in readers:
        replace_weight(reader, reader.weight @ entry)
    for writer in writers:
        bias = None if writer.bias is None else writer.bias @ leave
        replace_weight(writer, leave.T @ writer.weight, bias)
    narrow_norm(norm, *entry.shape)


def narrow_norm(norm: Any, hidden: int, width: int) -> None:
    """Make a norm of `width` channels divide by the mean over `hidden` channels: removed ones count as zero, not as missing."""
    replace_weight(norm, norm.weight.detach()[:width].clone().fill_((hidden / width) ** 0.5))
    norm.variance_epsilon *= hidden / width


def sliced_width(config: Any, level: Level) -> int:
    """Return how many channels of the residual stream are left at a level."""
    return round(config.hidden_size * (1 - level.fraction))


def head_width(config: Any, job: Job) -> int:
    """Return how many channels of the residual stream the head reads."""
    return sliced_width(config, job.level) if job.settings["head"] == SLICED else int(config.hidden_size)


def fits(config: Any, level: Level) -> str:
    """Return why a model cannot be sliced at a level, or ""."""
    too_much = sliced_width(config, level) < 1 if not other_layers(config) else False
    return other_layers(config) or ("no channel of its residual stream would be left" if too_much else "")


def fits_head(config: Any, level: Level, head: str) -> str:
    """Return why the head cannot read the whole stream, or ""."""
    return "its experts write as many channels as they read, so head=whole is not possible" if head == WHOLE and is_moe(config) else ""


def verify_slices(model: Any, job: Job) -> dict[str, Any]:
    """Return the widths left, and the share of decoder weights removed (the residual connections' matrices count as weights).

    Raises PostConditionError if a layer has another width.
    """
    width, last_width = sliced_width(model.config, job.level), head_width(model.config, job)
    for number, layer in enumerate(model.model.layers):
        readers, writers = attention_readers(layer) + mlp_readers(layer), mlp_writers(layer)
        inner = {reader.weight.shape[1] for reader in readers} | {writer.weight.shape[0] for writer in attention_writers(layer)}
        outer, expected = {writer.weight.shape[0] for writer in writers}, last_width if layer is model.model.layers[-1] else width
        if inner != {width} or outer != {expected}:
            wrong, instead = (sorted(inner), width) if inner != {width} else (sorted(outer), expected)
            raise PostConditionError(f"decoder layer {number} reads and writes a stream of width {wrong} instead of {instead}")
    return {"stream_width": width, "head_width": last_width} | left_over(model, job.statistics.decoder_weights)


def _axes(moments: Any) -> Any:
    """Return the eigenvectors (channel, axis) of a matrix of second moments, strongest first."""
    import torch

    return torch.linalg.eigh(moments.double()).eigenvectors.flip(1).cpu()


METHOD = STRUCTURED(
    name="slicegpt",
    paper="Ashkboos et al. 2024, arXiv:2401.15024",
    needs=DATA,
    compress=slicegpt,
    settings_for=lambda level: {"signals": "dense model, normalised"},
    fits=fits,
    verify=verify_slices,
    collect=collect_axes,
    statistics_of=Statistics,
    options={
        "head": Option(
            "what the head reads [whole, of a mixture of experts sliced]",
            f"{WHOLE} or {SLICED}",
            words(whole=WHOLE, sliced=SLICED),
            lambda config, level: SLICED if is_moe(config) else WHOLE,
            fits_head,
        )
    },
    unsavable="its residual stream changes width between layers, which no config can say",
)
