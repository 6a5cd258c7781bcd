"""The interface through which stores are read, whether from an Icechunk session or from an exported zip file.

In: Zarr keys.  Out: bytes, None for an absent key. All code that reads a store uses `Keys`.
"""

from collections.abc import Sequence
from typing import Protocol

from schemas.layout import MAX_CHUNK_BYTES

MAX_STORED_CHUNK = MAX_CHUNK_BYTES + MAX_CHUNK_BYTES // 128 + 1024  # size of an incompressible chunk after zstd, with the checksum


class Keys(Protocol):
    """Read access to the keys of one snapshot."""

    @property
    def where(self) -> str:
        """Name of this store in messages."""

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the bytes at each key, None for an absent key."""

    def children(self, group: str) -> list[str]:
        """Return the sorted names directly under a group."""


class FetchedKeys:
    """Keys that have been fetched already, so that threads can decode them without asking the store."""

    def __init__(self, keys: Keys, names: Sequence[str]) -> None:
        self.where = keys.where
        self._values = dict(zip(names, keys.get_many(names), strict=True))

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the bytes at each fetched key, None for an absent key."""
        return [self._values.get(key) for key in keys]

    def children(self, group: str) -> list[str]:
        """Return the sorted names directly under a group, of the fetched keys only."""
        return sorted({key.removeprefix(f"{group}/").split("/")[0] for key in self._values if key.startswith(f"{group}/")} - {"zarr.json"})
