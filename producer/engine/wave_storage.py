"""Keep hidden states between two layers: on the device, in host memory and, beyond that budget, in a temporary file.

In: a memory plan.  Out: each batch's hidden states, as a tensor or as a part of the file. The file has no name, so the system deletes it
however the process ends. It is in the cache folder, since /tmp is kept in memory on many machines. It is read and written batch by batch
and never memory-mapped: a full disk then raises an error instead of crashing the process, and its pages do not count as memory used.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from producer.engine.memory_plan import MemoryPlan
from schemas.errors import HedgemarkError
from store.backend.user_cache import existing_cache_folder


class WaveStorage:
    """Stores the hidden states of one wave at a time, in memory up to the plan's share and in the file beyond it."""

    def __init__(self, plan: MemoryPlan) -> None:
        self._plan, self._file = plan, _File()
        self.start_wave()

    def close(self) -> None:
        """Delete the file."""
        self._file.close()

    def start_wave(self) -> None:
        """Count all space as free again; the new wave overwrites the previous one in the file."""
        self._in_memory = self._on_disk = 0

    def has_room(self, n_tokens: int) -> bool:
        """Return whether a batch of `n_tokens` padded tokens still fits into the wave; the first batch of a wave always does."""
        used = self._in_memory + self._on_disk
        return not used or used + n_tokens <= self._plan.wave_tokens

    def store(self, hidden: Any) -> Any:
        """Return hidden states (item, token, width) as stored: a tensor in memory, or `StatesOnDisk`."""
        n_tokens = hidden.shape[0] * hidden.shape[1]
        in_memory = self._plan.wave_tokens - self._plan.disk_tokens
        if not self._plan.disk_tokens or self._in_memory + n_tokens <= in_memory:
            self._in_memory += n_tokens
            return hidden.to(self._plan.states_device)
        on_disk = StatesOnDisk(self._file, self._on_disk * hidden.shape[2] * hidden.itemsize, tuple(hidden.shape), hidden.dtype)
        self._on_disk += n_tokens
        return on_disk.write(hidden)


def overwrite(stored: Any, hidden: Any) -> Any:
    """Replace a batch's stored hidden states by those after a layer, on the same device or in the same part of the file; return them."""
    return stored.write(hidden) if isinstance(stored, StatesOnDisk) else hidden.to(stored.device)


@dataclass(frozen=True)
class StatesOnDisk:
    """Hidden states in a file, used like a tensor: `to` reads them onto a device, and a slice selects some of the items.

    offset : bytes from the start of the file. shape : (item, token, width).
    """

    file: "_File"
    offset: int
    shape: tuple[int, ...]
    dtype: Any

    def __getitem__(self, items: slice) -> "StatesOnDisk":
        start, stop, _ = items.indices(self.shape[0])
        item_bytes = self.shape[1] * self.shape[2] * self.dtype.itemsize
        return replace(self, offset=self.offset + start * item_bytes, shape=(stop - start, *self.shape[1:]))

    def to(self, device: str) -> Any:
        """Return the hidden states as a tensor on a device."""
        import torch

        hidden = torch.empty(self.shape, dtype=self.dtype)
        self.file.read(_bytes(hidden), self.offset)
        return hidden.to(device)

    def write(self, hidden: Any) -> "StatesOnDisk":
        """Overwrite the stored hidden states with others of the same shape, and return this object."""
        self.file.write(_bytes(hidden.cpu().contiguous()), self.offset)
        return self


class _File:
    """A temporary file, created when first written."""

    def __init__(self) -> None:
        self._stream: Any = None

    def write(self, data: memoryview, offset: int) -> None:
        try:
            if self._stream is None:
                self._stream = tempfile.TemporaryFile(dir=existing_cache_folder(), buffering=0)  # noqa: SIM115  # closed by `close`
            _transfer(lambda part, at: os.pwrite(self._stream.fileno(), part, at), data, offset)
        except OSError as error:
            raise HedgemarkError(
                f"cannot write intermediate results to {existing_cache_folder()} ({error.strerror}); free some disk space "
                "there, choose another folder with the variable HEDGEMARK_CACHE, or allow more memory with --host-memory"
            ) from error

    def read(self, data: memoryview, offset: int) -> None:
        _transfer(lambda part, at: os.preadv(self._stream.fileno(), [part], at), data, offset)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()


def _transfer(call: Callable[[memoryview, int], int], data: memoryview, offset: int) -> None:
    """Read or write all of the data by repeated calls, since one system call transfers 2 GB at most."""
    done = 0
    while done < len(data):
        done += call(data[done:], offset + done)


def _bytes(tensor: Any) -> memoryview:
    import torch

    return memoryview(tensor.view(torch.uint8).numpy()).cast("B")
