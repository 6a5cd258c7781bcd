"""Keys and bytes: the little that reading a store needs, whether it is an Icechunk session or an exported zip file.

In: Zarr keys.  Out: bytes, None where a key is absent. Everything above this file works on `Keys`.
"""

from collections.abc import Sequence
from typing import Protocol

from schemas.layout import MAX_CHUNK_BYTES

MAX_STORED_CHUNK = MAX_CHUNK_BYTES + MAX_CHUNK_BYTES // 128 + 1024  # zstd's worst case and the checksum


class Keys(Protocol):
    """Read access to the keys of one snapshot."""

    @property
    def where(self) -> str:
        """What messages call this store."""

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the bytes at each key, None where there are none."""

    def children(self, group: str) -> list[str]:
        """Return the sorted names directly under a group."""


class FetchedKeys:
    """Keys that have been fetched already, so that threads can decode them without asking the store."""

    def __init__(self, keys: Keys, names: Sequence[str]) -> None:
        self.where = keys.where
        self._values = dict(zip(names, keys.get_many(names), strict=True))

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the bytes at each fetched key, None where there are none."""
        return [self._values.get(key) for key in keys]

    def children(self, group: str) -> list[str]:
        """Return the sorted names directly under a group, as far as they were fetched."""
        return sorted({key.removeprefix(f"{group}/").split("/")[0] for key in self._values if key.startswith(f"{group}/")} - {"zarr.json"})
