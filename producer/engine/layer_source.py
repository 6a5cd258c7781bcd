"""Where a layer's weights come from: already on the device, or brought there one layer at a time.

In: a model.  Out: layers in order, each ready to run on the device. In layer-major order the weights stay on the host (memory-mapped
files where the checkpoint's dtype allows) and a thread brings the next layer while this one computes.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

ALIGNMENT = 64  # bytes, a cache line


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
        self._places = Place(target), Place(target)

    def layers(self) -> Iterator[Any]:
        """Yield each layer with its weights on the device."""
        with ThreadPoolExecutor(1, thread_name_prefix="hedgemark-layer") as thread:
            coming = thread.submit(self._bring, 0)
            for number, layer in enumerate(self._layers):
                weights = coming.result()
                if number + 1 < len(self._layers):
                    coming = thread.submit(self._bring, number + 1)
                with installed(layer, weights):
                    yield layer
                    synchronize(self._target.device)  # the layer after next may take this one's place only when it is done

    def _bring(self, number: int) -> dict[str, Any]:
        return self._places[number % 2].fill(self._layers[number])


class Place:
    """Memory on the device for one module's weights at a time.

    It is kept from module to module: memory asked for and given back at every layer was never all given back.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._memory: Any = None

    def fill(self, module: Any) -> dict[str, Any]:
        """Return the module's parameters, in the target's dtype, and its buffers by name, copied over those of the module before."""
        import torch

        device = self._target.device
        stream = torch.cuda.Stream(device) if device.startswith("cuda") else None  # type: ignore[no-untyped-call]
        tensors = [(name, p.data, self._dtype(p)) for name, p in module.named_parameters()]
        tensors += [(name, b, b.dtype) for name, b in module.named_buffers()]
        size = sum(_room(tensor, dtype) for _, tensor, dtype in tensors)
        with torch.cuda.stream(stream):
            if self._memory is None or len(self._memory) < size:
                self._memory = None  # what is too small goes before more is asked for
                self._memory = torch.empty(size, dtype=torch.uint8, device=device)
            weights = dict(self._copies(tensors))
        if stream is not None:
            stream.synchronize()
        return weights

    def _copies(self, tensors: list[tuple[str, Any, Any]]) -> Iterator[tuple[str, Any]]:
        start = 0
        for name, tensor, dtype in tensors:
            memory = self._memory[start : start + tensor.numel() * dtype.itemsize]
            yield name, memory.view(dtype).view(tensor.shape).copy_(tensor)
            start += _room(tensor, dtype)

    def _dtype(self, tensor: Any) -> Any:
        return self._target.dtype if tensor.is_floating_point() else tensor.dtype


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
    """Return the size of a layer's parameters in a dtype, and of its buffers as they are."""
    return int(sum(p.numel() * dtype.itemsize for p in layer.parameters()) + sum(b.nbytes for b in layer.buffers()))


def synchronize(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def _room(tensor: Any, dtype: Any) -> int:
    """Return the bytes that a tensor takes in a dtype, up to where the next one may begin."""
    return -(-tensor.numel() * dtype.itemsize // ALIGNMENT) * ALIGNMENT
