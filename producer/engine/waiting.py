"""Where hidden states wait for the next layer: on the device, in host memory and, beyond that budget, in a temporary file.

In: a layout.  Out: hidden states with a place of their own. The file has no name, so nothing of it is left however the process ends. It
lies in the cache folder, since /tmp is memory on many machines; it is read and written batch by batch and never mapped, so that a full
disk is an error (a mapped page would be a crash) and no page of it counts against the budget.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from producer.engine.memory_plan import Layout
from producer.machine.cache_dir import cache_dir
from schemas.errors import HedgemarkError


class WaitingRoom:
    """Gives each slab's hidden states a place, until a wave is full."""

    def __init__(self, layout: Layout) -> None:
        self._layout, self._file = layout, _File()
        self.clear()

    def close(self) -> None:
        """Give the file's space back."""
        self._file.close()

    def clear(self) -> None:
        """Begin a wave: every place is free again."""
        self._in_memory = self._on_disk = 0

    def takes(self, n_tokens: int) -> bool:
        """Return whether so many padded tokens may still join the wave; the first slab always may."""
        used = self._in_memory + self._on_disk
        return not used or used + n_tokens <= self._layout.wave_tokens

    def admit(self, hidden: Any) -> Any:
        """Return hidden states (item, token, width) in their place: a tensor where they wait in memory, `OnDisk` where they do not."""
        n_tokens = hidden.shape[0] * hidden.shape[1]
        in_memory = self._layout.wave_tokens - self._layout.disk_tokens
        if not self._layout.disk_tokens or self._in_memory + n_tokens <= in_memory:
            self._in_memory += n_tokens
            return hidden.to(self._layout.waiting_on)
        place = OnDisk(self._file, self._on_disk * hidden.shape[2] * hidden.itemsize, tuple(hidden.shape), hidden.dtype)
        self._on_disk += n_tokens
        return place.put(hidden)


def put_back(place: Any, hidden: Any) -> Any:
    """Return hidden states, a layer later, where those before them waited."""
    return place.put(hidden) if isinstance(place, OnDisk) else hidden.to(place.device)


@dataclass(frozen=True)
class OnDisk:
    """Hidden states of some shape in a file; like a tensor, `to` brings them to a device and a slice takes some of the items."""

    file: "_File"
    offset: int
    shape: tuple[int, ...]
    dtype: Any

    def __getitem__(self, items: slice) -> "OnDisk":
        start, stop, _ = items.indices(self.shape[0])
        row = self.shape[1] * self.shape[2] * self.dtype.itemsize
        return replace(self, offset=self.offset + start * row, shape=(stop - start, *self.shape[1:]))

    def to(self, device: str) -> Any:
        """Return the hidden states as a tensor on a device."""
        import torch

        hidden = torch.empty(self.shape, dtype=self.dtype)
        self.file.read(_bytes(hidden), self.offset)
        return hidden.to(device)

    def put(self, hidden: Any) -> "OnDisk":
        """Write hidden states of the same shape over those that are here."""
        self.file.write(_bytes(hidden.cpu().contiguous()), self.offset)
        return self


class _File:
    """A temporary file, opened when first written."""

    def __init__(self) -> None:
        self._stream: Any = None

    def write(self, data: memoryview, offset: int) -> None:
        try:
            if self._stream is None:
                self._stream = tempfile.TemporaryFile(dir=cache_dir(), buffering=0)  # noqa: SIM115  # open for as long as the room
            _move(lambda part, at: os.pwrite(self._stream.fileno(), part, at), data, offset)
        except OSError as error:
            raise HedgemarkError(
                f"hidden states found no room in {cache_dir()} ({error.strerror}); free some space there, name another folder by "
                "HEDGEMARK_CACHE, or give more --host-memory"
            ) from error

    def read(self, data: memoryview, offset: int) -> None:
        _move(lambda part, at: os.preadv(self._stream.fileno(), [part], at), data, offset)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()


def _move(move: Callable[[memoryview, int], int], data: memoryview, offset: int) -> None:
    """Move all of the data; one call of the system moves 2 GB at most."""
    done = 0
    while done < len(data):
        done += move(data[done:], offset + done)


def _bytes(tensor: Any) -> memoryview:
    import torch

    return memoryview(tensor.view(torch.uint8).numpy()).cast("B")
