"""Encode the arrays of a group for the store, and read them back without ever exceeding their declared sizes.

In: arrays and specs, or `Keys`.  Out: (key, bytes) pairs, or arrays. The metadata of an array must be exactly what `schemas.layout`
prescribes for its shape: no other codec, dtype, filter or transformer is ever interpreted. Chunks are little-endian bytes, zstd and
crc32c, exactly as Zarr v3 writes them. Zarr's own decoder allocates as much as a zstd frame announces (65 kB can announce 2 GB), so ours
decodes into a buffer of the declared size and refuses a frame that holds more or less.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import zstd  # type: ignore[import-untyped]  # ships no types
from numpy.typing import NDArray

from schemas.errors import HedgemarkError, StoreInvalidError
from schemas.json_text import json_bytes
from schemas.layout import ITEM_SIZES, MAX_ARRAY_BYTES, ZSTD_LEVEL, ArraySpec, array_document, chunk_keys, chunk_shape
from store.format.documents import parse_document
from store.format.keys import Keys

CRC_BYTES = 4


def encode_arrays(group: str, specs: Mapping[str, ArraySpec], arrays: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, bytes]]:
    """Yield the keys and bytes of a group's arrays. Raises HedgemarkError if an array does not match its spec."""
    for name, spec in specs.items():
        array = arrays[name]
        if array.dtype.name != spec.dtype or array.ndim != len(spec.dims) or array.nbytes > MAX_ARRAY_BYTES:
            raise HedgemarkError(
                f"{group}: {name} is {array.dtype} {array.shape}; "
                f"expected {spec.dtype} with dimensions {spec.dims}, at most {MAX_ARRAY_BYTES} bytes"
            )
        yield f"{group}/{name}/zarr.json", json_bytes(array_document(spec, array.shape))
        for number, key in enumerate(chunk_keys(spec, array.shape)):
            yield f"{group}/{name}/{key}", encode(_chunk(array, spec, number))


def read_arrays(keys: Keys, group: str, specs: Mapping[str, ArraySpec], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[Any]]:
    """Return a group's arrays of the given shapes. Raises StoreInvalidError if anything is missing, different or damaged."""
    for name, spec in specs.items():
        check_shape(spec, shapes[name], f"store {keys.where}: {group}/{name}")
    stored = _fetch(keys, group, specs, shapes)
    arrays = {}
    for name, spec in specs.items():
        where = f"store {keys.where}: {group}/{name}"
        document = parse_document(stored[f"{name}/zarr.json"], where)
        if document != array_document(spec, shapes[name]):
            raise StoreInvalidError(f"{where} is not the array that the layout prescribes for {spec.dtype} {list(shapes[name])}")
        arrays[name] = _assemble(spec, shapes[name], [stored[f"{name}/{key}"] for key in chunk_keys(spec, shapes[name])], where)
    return arrays


def array_keys(group: str, specs: Mapping[str, ArraySpec], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return every key that a group's arrays have, metadata before chunks. Raises StoreInvalidError for a shape that is not allowed."""
    for name, spec in specs.items():  # first, because a hostile shape has so many chunks that their keys would fill the memory
        check_shape(spec, shapes[name], f"{group}/{name}")
    return [f"{group}/{name}/{key}" for name, spec in specs.items() for key in ["zarr.json", *chunk_keys(spec, shapes[name])]]


def check_shape(spec: ArraySpec, shape: tuple[int, ...], where: str) -> None:
    """Raise StoreInvalidError for a shape that the layout does not allow; called before memory of that size is allocated."""
    positive = all(isinstance(size, int) and size > 0 for size in shape)
    if not positive or len(shape) != len(spec.dims) or (spec.width is not None and shape[1] != spec.width):
        raise StoreInvalidError(f"{where}: shape {list(shape)} does not fit dimensions {spec.dims}")
    if math.prod(shape) * ITEM_SIZES[spec.dtype] > MAX_ARRAY_BYTES:
        raise StoreInvalidError(f"{where}: shape {list(shape)} is larger than the {MAX_ARRAY_BYTES} bytes that an array may have")


def _fetch(keys: Keys, group: str, specs: Mapping[str, ArraySpec], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, bytes | None]:
    names = array_keys(group, specs, shapes)
    return {name.removeprefix(f"{group}/"): value for name, value in zip(names, keys.get_many(names), strict=True)}


def _assemble(spec: ArraySpec, shape: tuple[int, ...], stored: list[bytes | None], where: str) -> NDArray[Any]:
    parts = []
    for number, chunk in enumerate(stored):
        if chunk is None:
            raise StoreInvalidError(f"{where}: chunk {number} is missing")
        parts.append(decode(chunk, chunk_shape(spec, shape), spec.dtype, where))
    array = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return array[: shape[0]]


def _chunk(array: NDArray[Any], spec: ArraySpec, number: int) -> NDArray[Any]:
    rows = chunk_shape(spec, array.shape)[0]
    chunk = array[number * rows : (number + 1) * rows]
    missing = rows - len(chunk)
    if not missing:
        return chunk
    fill = np.full((missing, *array.shape[1:]), np.nan if spec.fill == "NaN" else spec.fill, dtype=array.dtype)
    return np.concatenate([chunk, fill])  # Zarr stores the last chunk in full size


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
