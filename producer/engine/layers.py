"""Where a layer's weights come from: already on the device, or brought there one layer at a time.

In: a model.  Out: layers in order, each ready to run on the device. In layer-major order the weights stay on the host (memory-mapped
files where the checkpoint's dtype allows) and a thread brings the next layer while this one computes.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol


class Target(NamedTuple):
    """Where and in what precision layers run."""

    device: str
    dtype: Any


class LayerSource(Protocol):
    """Gives the layers of a model in order; may be asked several times."""

    def layers(self) -> Iterator[Any]:
        """Yield each layer, ready to run; it may be gone when the next one is asked for."""


class Resident:
    """All layers are on the device already."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self._layers = layers

    def layers(self) -> Iterator[Any]:
        """Yield the layers as they are."""
        yield from self._layers


class Streamed:
    """Layers stay on the host; two of them at most are on the device, the one that runs and the next."""

    def __init__(self, layers: Sequence[Any], target: Target) -> None:
        self._layers, self._target = layers, target

    def layers(self) -> Iterator[Any]:
        """Yield each layer with its weights on the device."""
        with ThreadPoolExecutor(1, thread_name_prefix="hedgemark-layer") as thread:
            coming = thread.submit(copy_weights, self._layers[0], self._target)
            for number, layer in enumerate(self._layers):
                weights = coming.result()
                if number + 1 < len(self._layers):
                    coming = thread.submit(copy_weights, self._layers[number + 1], self._target)
                with installed(layer, weights):
                    yield layer
                    synchronize(self._target.device)  # the next copy may take this layer's memory only when it is done
                del weights


def copy_weights(module: Any, target: Target) -> dict[str, Any]:
    """Return copies of a module's parameters and buffers on the device, parameters in the target's dtype."""
    import torch

    stream = torch.cuda.Stream(target.device) if target.device.startswith("cuda") else None  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        weights = {name: _copy(p.data, target.device, target.dtype) for name, p in module.named_parameters()}
        weights |= {name: _copy(b, target.device, None) for name, b in module.named_buffers()}
    if stream is not None:
        stream.synchronize()
    return weights


@contextmanager
def installed(module: Any, weights: dict[str, Any]) -> Iterator[None]:
    """Within it the module's own tensors are replaced by those given, by name."""
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    before = {name: tensor.data for name, tensor in own.items()}
    try:
        for name, tensor in own.items():
            tensor.data = weights[name]
        yield
    finally:
        for name, tensor in own.items():
            tensor.data = before[name]


def layer_bytes(layer: Any, dtype: Any) -> int:
    """Return the size of a layer's weights in a dtype."""
    return int(sum(p.numel() for p in layer.parameters()) * dtype.itemsize)


def synchronize(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def _copy(tensor: Any, device: str, dtype: Any) -> Any:
    wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return tensor.to(device, wanted, copy=True)
