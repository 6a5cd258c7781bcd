"""Rotations that leave a model's outputs unchanged but spread outliers, so that activations can be rounded to few bits.

R1 rotates the residual stream and R2 the values of every attention head; both are multiplied into weights. R4 rotates the input of every
down projection while the model runs, and a rotation across heads, where there is one, the input of every output projection. llm-compressor
has R1, R2 and R4 too, but it does not rotate routers, and it centres the embeddings, which changes the outputs of a model with RMSNorm; so
only its Hadamard matrices are used here.
Source: Ashkboos et al. 2024 (QuaRot, arXiv:2404.00456) section 4; Liu et al. 2025 (SpinQuant, arXiv:2405.16406) figure 1.
"""

from typing import Any, NamedTuple

from producer.methods.shared.architectures import linear_shapes
from producer.methods.shared.residual_stream import (
    attention_readers,
    attention_writers,
    fuse,
    fuse_norms,
    mlp_readers,
    mlp_writers,
    replace_weight,
)

LARGEST_KNOWN = 256  # compressed-tensors has Hadamard matrices of all multiples of 4 up to this size; larger ones are made by doubling


class Rotations(NamedTuple):
    """Rotation matrices, float64.

    stream : R1, (hidden, hidden).
    values : R2 of every layer, (head, head).
    down   : R4 for each width of a down projection, as two factors (a, a) and (b, b) of a Kronecker product.
    heads  : rotation across heads of what attention gives, (head, head) over the number of query heads, None if there is none.
    """

    stream: Any
    values: list[Any]
    down: dict[int, tuple[Any, Any]]
    heads: Any = None


class RotateInput:
    """Forward pre-hook: multiply a layer's input by the Kronecker product of two orthogonal matrices; None stands for the identity."""

    def __init__(self, left: Any, right: Any = None) -> None:
        self.left, self.right = left, right

    def __call__(self, layer: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the layer's arguments with the first of them, (..., a * b), rotated."""
        x = arguments[0]
        blocks = x.unflatten(-1, (len(self.left), -1))
        blocks = self.left.to(x.device, x.dtype).T @ blocks
        rotated = blocks if self.right is None else blocks @ self.right.to(x.device, x.dtype)
        return (rotated.flatten(-2), *arguments[1:])


def no_hadamard(config: Any) -> str:
    """Return "" if Hadamard matrices of all needed sizes are known, else a sentence that names the first missing one."""
    shapes = linear_shapes(config)
    widths = {"hidden_size": shapes["self_attn.q_proj"].columns, "head_dim": head_size(config)}
    widths |= {name: shape.columns for name, shape in shapes.items() if name.endswith("down_proj")}
    unknown = [f"no Hadamard matrix of size {width} ({name}) is known" for name, width in widths.items() if not is_hadamard(width)]
    return unknown[0] if unknown else ""


def is_hadamard(width: int) -> bool:
    """Return whether a Hadamard matrix of a size is known."""
    odd = width // _power_of_two(width)
    return odd == 1 or (width % 4 == 0 and 4 * odd <= LARGEST_KNOWN)


def head_size(config: Any) -> int:
    """Return the width of one attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def random_rotations(model: Any, seed: int, *, across_heads: bool = False) -> Rotations:
    """Return random Hadamard rotations in the sizes that a model needs; the seed determines them."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    head, hidden = head_size(model.config), model.model.embed_tokens.weight.shape[1]
    widths = sorted({writer.weight.shape[1] for layer in model.model.layers for writer in mlp_writers(layer)})
    down = {}
    for width in widths:
        right = _right_factor(width)
        down[width] = (hadamard(width // right, generator), hadamard(right, generator))
    stream, values = hadamard(hidden, generator), [hadamard(head, generator) for _ in model.model.layers]
    return Rotations(stream, values, down, hadamard(model.config.num_attention_heads, generator) if across_heads else None)


class Rotation(NamedTuple):
    """Fuses the norms and rotates, in place (a `producer.methods.shared.float64_transform.Transformation`)."""

    rotations: Rotations

    def embedding(self, embedding: Any) -> None:
        """Rotate the embeddings."""
        replace_weight(embedding, embedding.weight @ self._stream(embedding))

    def layer(self, number: int, layer: Any) -> Any:
        """Rotate the stream that a layer reads and writes, the values of its attention, and the inputs of its down projections."""
        fuse_norms(layer)
        stream = self._stream(layer.self_attn.q_proj)
        parameters, values = dict(layer.named_parameters()), self.rotations.values[number].to(stream.device)
        for name, weight in rotated_weights(layer, parameters, stream, values, self.rotations.down, self.rotations.heads).items():
            parameters[name].data = weight.contiguous()
        if self.rotations.heads is not None:
            layer.self_attn.o_proj.register_forward_pre_hook(RotateInput(self.rotations.heads))
        for down in mlp_writers(layer):
            down.register_forward_pre_hook(RotateInput(*self.rotations.down[down.weight.shape[1]]))
        return layer

    def head(self, norm: Any, head: Any) -> None:
        """Rotate the stream that the head reads."""
        fuse(norm, [head])
        replace_weight(head, head.weight @ self._stream(head))

    def _stream(self, module: Any) -> Any:
        return self.rotations.stream.to(module.weight.device)


def rotated_weights(  # noqa: PLR0913, PLR0917  # one argument for each rotation
    layer: Any, parameters: dict[str, Any], stream: Any, values: Any, down: dict[int, tuple[Any, Any]], heads: Any = None
) -> dict[str, Any]:
    """Return, by name, every weight and bias of a layer with fused norms that R1, R2, R4 or the rotation across heads changes.

    parameters     : the layer's parameters by name.
    stream, values : R1 and this layer's R2; the result is differentiable in both.
    """
    names = {module: name for name, module in layer.named_modules()}
    value, output, size = layer.self_attn.v_proj, layer.self_attn.o_proj, values.shape[0]
    before = {module: parameters[f"{names[module]}.weight"] for module in names if hasattr(module, "weight")}
    weights = {module: before[module] @ stream for module in attention_readers(layer) + mlp_readers(layer)}
    for writer in mlp_writers(layer):
        weights[writer] = stream.T @ RotateInput(*down[writer.weight.shape[1]])(writer, (before[writer],))[0]
    weights[value] = (values.T @ weights[value].unflatten(0, (-1, size))).flatten(0, 1)
    by_head = (before[output].unflatten(1, (-1, size)) @ values).flatten(1)
    weights[output] = stream.T @ (by_head if heads is None else RotateInput(heads)(output, (by_head,))[0])
    writers = attention_writers(layer) + mlp_writers(layer)
    biases = {writer: parameters[f"{names[writer]}.bias"] @ stream for writer in writers if writer.bias is not None}
    if value.bias is not None:
        biases[value] = (parameters[f"{names[value]}.bias"].unflatten(0, (-1, size)) @ values).flatten()
    changed = {f"{names[module]}.weight": weight for module, weight in weights.items()}
    return changed | {f"{names[module]}.bias": bias for module, bias in biases.items()}


def _power_of_two(width: int) -> int:
    """Return the largest power of two that divides a width."""
    return width & -width


def _right_factor(width: int) -> int:
    """Return the right factor of a width: a power of two near its square root whose quotient is a multiple of 4 or a power of two."""
    power = _power_of_two(width)
    exponent = power.bit_length() - 1
    return int(1 << max(0, min(exponent // 2, exponent if power == width else exponent - 2)))


def hadamard(size: int, generator: Any) -> Any:
    """Return a random orthogonal Hadamard matrix, float64."""
    import torch
    from compressed_tensors.transform.utils.hadamard import random_hadamard_matrix  # type: ignore[import-untyped]

    return random_hadamard_matrix(size, dtype=torch.float64, gen=generator) / size**0.5
