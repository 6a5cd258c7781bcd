"""The layout of a store as data: its groups, arrays, dtypes, codecs and size limits. `layout.md` says the same in prose.

In: a shape and attributes.  Out: the exact Zarr v3 metadata documents. Documents that differ from these are refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.digest import json_digest

SCHEMA_VERSION = 4
OLDEST_READ = 1  # oldest schema version that is read without migration; writing needs the current one
READABLE = range(OLDEST_READ, SCHEMA_VERSION + 1)
MIN_READER = 4  # oldest schema version whose readers understand what this version writes

ITEMS, RUNS = "items", "runs"
FORMAT = "hedgemark"
SEAL = "seal"
SEALED_ROOT = 3  # since this schema version the root is sealed, and a tagged snapshot records its tag

# Limits for untrusted stores: nothing larger is ever allocated, whatever their metadata declare.
MAX_ARRAY_BYTES = 256 * 2**20  # 10 million items of 6 float32 options
MAX_CHUNK_BYTES = 16 * 2**20  # decoded
MAX_DOCUMENT_BYTES = 2**20  # one zarr.json; a run's is about 2 kB
MAX_NAME_LENGTH = 300  # a run's name has five parts of at most 48 characters and its hash
MAX_JSON_DEPTH = 32
ZSTD_LEVEL = 3


@dataclass(frozen=True)
class ArraySpec:
    """One array of a group: its dtype, dimension names, fill value, and its number of columns if the layout fixes it."""

    dtype: str
    dims: tuple[str, ...]
    fill: Any
    width: int | None = None


RUN_ARRAYS: Mapping[str, ArraySpec] = {
    "logits": ArraySpec("float32", ("item", "option"), "NaN"),
    "logsumexp": ArraySpec("float32", ("item",), "NaN"),
    "top_token": ArraySpec("int32", ("item",), -1),
}
TOKEN_ARRAYS: Mapping[str, ArraySpec] = {  # present in runs over a text
    "token_logprob": ArraySpec("float32", ("token",), "NaN"),
    "token_kl": ArraySpec("float32", ("token",), "NaN"),
    "token_same_top": ArraySpec("bool", ("token",), False),
    "document_offsets": ArraySpec("int64", ("document_boundary",), 0),
}
ITEM_ARRAYS: Mapping[str, ArraySpec] = {
    "item_id": ArraySpec("uint64", ("item",), 0),
    "content": ArraySpec("uint8", ("item", "digest_byte"), 0, width=32),
    "answer": ArraySpec("int16", ("item",), 0),
    "n_options": ArraySpec("int16", ("item",), 0),
    "subject": ArraySpec("int32", ("item",), 0),
    "demonstration": ArraySpec("bool", ("item",), False),
}
TEXT_ARRAYS: Mapping[str, ArraySpec] = {  # present if the texts are kept
    "texts": ArraySpec("uint8", ("text_byte",), 0),
    "text_offsets": ArraySpec("int64", ("text_boundary",), 0),
}
ITEM_SIZES = {"bool": 1, "uint8": 1, "int16": 2, "int32": 4, "float32": 4, "int64": 8, "uint64": 8}


def group_document(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the zarr.json of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def array_document(spec: ArraySpec, shape: Sequence[int]) -> dict[str, Any]:
    """Return the zarr.json of an array: little-endian bytes, zstd, and crc32c, because Icechunk itself does not notice a flipped bit."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": spec.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk_shape(spec, shape))}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": spec.fill,
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}},
            {"name": "crc32c"},
        ],
        "attributes": {},
        "dimension_names": list(spec.dims),
        "storage_transformers": [],
    }


def chunk_shape(spec: ArraySpec, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of one chunk: as many whole rows as fit in MAX_CHUNK_BYTES. Most arrays have one chunk."""
    row_bytes = ITEM_SIZES[spec.dtype]
    for size in shape[1:]:
        row_bytes *= size
    return (max(1, min(shape[0], MAX_CHUNK_BYTES // row_bytes)), *shape[1:])


def chunk_keys(spec: ArraySpec, shape: Sequence[int]) -> list[str]:
    """Return the keys of an array's chunks, relative to the array, in row order."""
    rows = chunk_shape(spec, shape)[0]
    return ["/".join(["c", str(number), *["0"] * (len(shape) - 1)]) for number in range(-(-shape[0] // rows))]


def sealed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes with their own SHA-256 added, so that a flipped bit in the metadata is noticed."""
    return {**attributes, SEAL: json_digest(dict(attributes))}


def seal_holds(attributes: Mapping[str, Any]) -> bool:
    """Return whether attributes match their seal, which means that they are what was written."""
    rest = {name: value for name, value in attributes.items() if name != SEAL}
    return attributes.get(SEAL) == json_digest(rest)


def root_attributes(schema: int = SCHEMA_VERSION, min_reader: int = MIN_READER) -> dict[str, Any]:
    """Return the attributes that the root group always has."""
    return {"format": FORMAT, "schema": schema, "min_reader": min_reader}
