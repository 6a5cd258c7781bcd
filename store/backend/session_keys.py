"""Read and write the keys of an Icechunk session: many requests at the same time, and no value larger than a chunk may be.

In: a session.  Out: `Keys`, and the methods to write that a commit needs.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import TypeVar

import icechunk
from zarr.buffer import default_buffer_prototype

from schemas.errors import StoreInvalidError
from store.backend.failures import readable
from store.backend.loop import gather, wait
from store.format.keys import MAX_STORED_CHUNK

T = TypeVar("T")

IN_FLIGHT = 256  # requests at the same time; limits memory when thousands of runs are read


class SessionKeys:
    """Keys of an Icechunk session.

    sizes_known : the sizes of all chunks have been checked (`store.safety.check_folder`, for local folders), so no request per chunk asks.
    """

    def __init__(self, session: icechunk.Session, where: str, *, sizes_known: bool = False) -> None:
        self._store = session.store
        self.where = where
        self._sizes_known = sizes_known

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the bytes at each key, None for an absent key."""
        with readable(self.where):
            return [value for batch in _batches(keys) for value in wait(self._gather(batch))]

    def children(self, group: str) -> list[str]:
        """Return the sorted names directly under a group."""
        with readable(self.where):
            return wait(self._children(group))

    async def exists(self, key: str) -> bool:
        """Return whether a key exists, without reading its value."""
        return await self._store.exists(key)

    def set_many(self, nodes: Iterable[tuple[str, bytes]]) -> None:
        """Write bytes to keys: metadata documents in order, then chunks, many at the same time because each is a request."""
        with readable(self.where):
            wait(self._set(nodes))

    def nodes_under(self, group: str) -> list[tuple[str, bytes]]:
        """Return every key under a group with its bytes, the group's own metadata first."""
        with readable(self.where):
            keys = sorted(wait(self._list(group)), key=lambda key: (key.count("/"), key))
        return [(key, value) for key, value in zip(keys, self.get_many(keys), strict=True) if value is not None]

    def delete_group(self, group: str) -> None:
        """Remove a group and everything under it."""
        with readable(self.where):
            wait(self._store.delete_dir(group))

    async def _gather(self, keys: Sequence[str]) -> list[bytes | None]:
        return await gather(self._get(key) for key in keys)

    async def _get(self, key: str) -> bytes | None:
        if "/c/" in key and not self._sizes_known and (size := await self._size(key)) > MAX_STORED_CHUNK:
            raise StoreInvalidError(f"store {self.where}: {key[:120]} has {size} bytes; a chunk has at most {MAX_STORED_CHUNK}")
        value = await self._store.get(key, default_buffer_prototype())
        return None if value is None else value.to_bytes()

    async def _size(self, key: str) -> int:
        try:
            return int(await self._store.getsize(key))
        except (KeyError, icechunk.IcechunkError):  # the array is absent or damaged; reading the chunk will raise the right error
            return 0

    async def _children(self, group: str) -> list[str]:
        return sorted([name async for name in self._store.list_dir(group) if name != "zarr.json"])

    async def _list(self, group: str) -> list[str]:
        return [key async for key in self._store.list_prefix(f"{group}/")]

    async def _set(self, nodes: Iterable[tuple[str, bytes]]) -> None:
        buffer = default_buffer_prototype().buffer
        chunks = []
        for key, value in nodes:
            if "/c/" in key:
                chunks.append((key, value))
            else:
                await self._store.set(key, buffer.from_bytes(value))
        for batch in _batches(chunks):
            await gather(self._store.set(key, buffer.from_bytes(value)) for key, value in batch)


def _batches(items: Sequence[T]) -> Iterable[tuple[T, ...]]:
    iterator = iter(items)
    return iter(lambda: tuple(itertools.islice(iterator, IN_FLIGHT)), ())
