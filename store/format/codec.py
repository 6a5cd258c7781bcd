"""Encode and decode chunks (little-endian bytes, zstd, crc32c) exactly as Zarr v3 does, but never beyond their declared size.

In: one chunk's array.  Out: its bytes, and back. Zarr's own decoder allocates as much as a zstd frame announces (65 kB can announce 2 GB),
so ours decodes into a buffer of the declared size and refuses a frame that holds more or less.
"""

from typing import Any

import google_crc32c
import numpy as np
from numcodecs import zstd  # type: ignore[import-untyped]  # ships no types
from numpy.typing import NDArray

from schemas.errors import StoreInvalidError
from schemas.layout import ZSTD_LEVEL

CRC_BYTES = 4


def encode(chunk: NDArray[Any]) -> bytes:
    """Return the stored bytes of one whole chunk."""
    little = np.ascontiguousarray(chunk, dtype=chunk.dtype.newbyteorder("<"))
    packed: bytes = zstd.compress(little.tobytes(), ZSTD_LEVEL)
    return packed + _checksum(packed)


def decode(stored: bytes, shape: tuple[int, ...], dtype: str, where: str) -> NDArray[Any]:
    """Return the chunk as an array of the declared shape and dtype.

    Raises StoreInvalidError if the checksum is wrong or the content has another size than the shape and dtype imply.
    """
    packed, checksum = stored[:-CRC_BYTES], stored[-CRC_BYTES:]
    if _checksum(packed) != checksum:
        raise StoreInvalidError(f"{where}: the checksum of a chunk does not hold; the data are damaged")
    chunk = np.empty(shape, dtype=np.dtype(dtype).newbyteorder("<"))
    announced = content_size(packed)
    if announced != chunk.nbytes:
        raise StoreInvalidError(f"{where}: a chunk announces {announced} bytes where {chunk.nbytes} were declared")
    try:
        zstd.decompress(packed, chunk.reshape(-1).view(np.uint8))
    except (ValueError, RuntimeError) as error:
        raise StoreInvalidError(f"{where}: a chunk does not decompress to {chunk.nbytes} bytes ({error})") from error
    return chunk.astype(np.dtype(dtype), copy=False)


def content_size(packed: bytes) -> int | None:
    """Return the content size that the first zstd frame declares, None if it declares none (RFC 8878, section 3.1.1.1)."""
    if len(packed) < 6 or packed[:4] != b"\x28\xb5\x2f\xfd":
        return None
    descriptor = packed[4]
    single_segment = bool(descriptor & 0x20)
    width = (1 if single_segment else 0, 2, 4, 8)[descriptor >> 6]
    start = 5 + (0 if single_segment else 1) + (0, 1, 2, 4)[descriptor & 3]
    if width == 0 or len(packed) < start + width:
        return None
    return int.from_bytes(packed[start : start + width], "little") + (256 if width == 2 else 0)


def _checksum(packed: bytes) -> bytes:
    return int(google_crc32c.value(packed)).to_bytes(CRC_BYTES, "little")
