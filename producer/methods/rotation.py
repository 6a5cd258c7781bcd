"""Rotations of a model that leave its function unchanged but spread outliers, so that activations survive few bits.

R1 turns the residual stream, R2 the values of every attention head; both vanish into weights. R4 turns the input of every down
projection while the model runs. llm-compressor has them too, but its mappings leave a router unturned and it centres the
embeddings, which only a LayerNorm forgives: with RMSNorm the function changes. Its Hadamard matrices are used.
Source: Ashkboos et al. 2024 (QuaRot, arXiv:2404.00456) section 4; Liu et al. 2025 (SpinQuant, arXiv:2405.16406) figure 1.
"""

from typing import Any, NamedTuple

from producer.methods.layout import linear_shapes
from producer.methods.structure import (
    attention_readers,
    attention_writers,
    fuse,
    fuse_norms,
    mlp_readers,
    mlp_writers,
    mlps,
    replace_weight,
)

LARGEST_KNOWN = 256  # compressed-tensors carries Hadamard matrices of every multiple of 4 up to here; doubling makes larger ones


class Rotations(NamedTuple):
    """R1 (hidden, hidden), one R2 (head, head) per layer, R4 as (a, a) and (b, b) whose Kronecker product it is, by width; float64."""

    stream: Any
    values: list[Any]
    down: dict[int, tuple[Any, Any]]


class RotateInput:
    """Forward pre-hook: multiply a layer's input by the Kronecker product of two small orthogonal matrices."""

    def __init__(self, left: Any, right: Any) -> None:
        self.left, self.right = left, right

    def __call__(self, layer: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments with the first, (..., a * b), rotated."""
        x = arguments[0]
        left, right = (part.to(x.device, x.dtype) for part in (self.left, self.right))
        blocks = x.unflatten(-1, (left.shape[0], right.shape[0]))
        return ((left.T @ blocks @ right).flatten(-2), *arguments[1:])


def no_hadamard(config: Any) -> str:
    """Return which of the model's widths has no known Hadamard matrix, or ""."""
    shapes = linear_shapes(config)
    widths = {"hidden_size": shapes["self_attn.q_proj"].columns, "head_dim": head_size(config)}
    widths |= {name: shape.columns for name, shape in shapes.items() if name.endswith("down_proj")}
    for name, width in widths.items():
        odd = width // _power_of_two(width)
        if odd > 1 and (width % 4 or 4 * odd > LARGEST_KNOWN):
            return f"no Hadamard matrix of size {width} ({name}) is known"
    return ""


def head_size(config: Any) -> int:
    """Return the width of one attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def random_rotations(model: Any, seed: int) -> Rotations:
    """Return random Hadamard rotations of a model's sizes, fixed by the seed."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    head, hidden = head_size(model.config), model.model.embed_tokens.weight.shape[1]
    widths = sorted({writer.weight.shape[1] for layer in model.model.layers for writer in mlp_writers(layer)})
    down = {}
    for width in widths:
        right = _right_factor(width)
        down[width] = (_hadamard(width // right, generator), _hadamard(right, generator))
    return Rotations(_hadamard(hidden, generator), [_hadamard(head, generator) for _ in model.model.layers], down)


class Rotation(NamedTuple):
    """Fuses the norms and rotates, in place (`producer.methods.exact.Transformation`)."""

    rotations: Rotations

    def embedding(self, embedding: Any) -> None:
        """Turn the stream that the embeddings begin."""
        replace_weight(embedding, embedding.weight @ self._stream(embedding))

    def layer(self, number: int, layer: Any) -> Any:
        """Turn the stream that a layer reads and writes, its values, and the inputs of its down projections."""
        fuse_norms(layer)
        turn = self._stream(layer.self_attn.q_proj)
        for reader in attention_readers(layer) + mlp_readers(layer):
            replace_weight(reader, reader.weight @ turn)
        for writer in attention_writers(layer) + mlp_writers(layer):
            replace_weight(writer, turn.T @ writer.weight, None if writer.bias is None else writer.bias @ turn)
        _rotate_values(layer.self_attn, self.rotations.values[number].to(turn.device))
        for mlp in mlps(layer):
            _rotate_down(mlp.down_proj, *self.rotations.down[mlp.down_proj.weight.shape[1]])
        return layer

    def head(self, norm: Any, head: Any) -> None:
        """Turn the stream that the head reads."""
        fuse(norm, [head])
        replace_weight(head, head.weight @ self._stream(head))

    def _stream(self, module: Any) -> Any:
        return self.rotations.stream.to(module.weight.device)


def _power_of_two(width: int) -> int:
    """Return the largest power of two that divides a width."""
    return width & -width


def _right_factor(width: int) -> int:
    """Return the power of two to split off a width: near its square root, and leaving a multiple of 4 unless a power of two is left."""
    power = _power_of_two(width)
    exponent = power.bit_length() - 1
    return int(1 << max(0, min(exponent // 2, exponent if power == width else exponent - 2)))


def _hadamard(size: int, generator: Any) -> Any:
    """Return a random orthogonal Hadamard matrix, float64."""
    import torch
    from compressed_tensors.transform.utils.hadamard import random_hadamard_matrix  # type: ignore[import-untyped]

    return random_hadamard_matrix(size, dtype=torch.float64, gen=generator) / size**0.5


def _rotate_values(attention: Any, turn: Any) -> None:
    """Rotate what every head's values are written in, and let the output projection turn it back."""
    value, output, size = attention.v_proj, attention.o_proj, turn.shape[0]
    rows = turn.T @ value.weight.unflatten(0, (-1, size))
    bias = None if value.bias is None else (value.bias.unflatten(0, (-1, size)) @ turn).flatten()
    replace_weight(value, rows.flatten(0, 1), bias)
    replace_weight(output, (output.weight.unflatten(1, (-1, size)) @ turn).flatten(1))


def _rotate_down(projection: Any, left: Any, right: Any) -> None:
    """Rotate the columns of a down projection and, as it runs, its input."""
    hook = RotateInput(left, right)
    (weight,) = hook(projection, (projection.weight,))
    replace_weight(projection, weight)
    projection.register_forward_pre_hook(hook)
