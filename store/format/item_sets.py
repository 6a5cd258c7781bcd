"""Encode an item set as a group of the store, and read it back with all its checks.

In: an `ItemSet`, or `Keys`.  Out: (key, bytes) pairs, or the item set with its digest verified. Texts are stored as one array of UTF-8
bytes with offsets, so that every array has a plain dtype.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ItemError, StoreInvalidError
from schemas.itemset import ItemSet
from schemas.json_text import json_bytes
from schemas.layout import ITEM_ARRAYS, ITEMS, SCHEMA_VERSION, TEXT_ARRAYS, ArraySpec, group_document, sealed
from store.format.arrays import encode_arrays, read_arrays
from store.format.documents import check_schema, count_of, group_attributes, text_of
from store.format.keys import Keys

OFFSETS_HASHED = 3  # since this schema version item sets record the SHA-256 of their text offsets


@dataclass(frozen=True)
class ItemsRecord:
    """An item set's attributes: everything but its arrays."""

    task: str
    revision: str
    subjects: tuple[str, ...]
    n_items: int
    text_bytes: int  # 0 where the text is not kept
    text_sha256: str
    text_offsets_sha256: str  # "" for item sets of schema versions 1 and 2

    def specs(self) -> Mapping[str, ArraySpec]:
        """Return the specs of its arrays by name."""
        return {**ITEM_ARRAYS, **TEXT_ARRAYS} if self.text_bytes else ITEM_ARRAYS

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array."""
        shapes = {name: (self.n_items, spec.width) if spec.width else (self.n_items,) for name, spec in ITEM_ARRAYS.items()}
        return {**shapes, "texts": (self.text_bytes,), "text_offsets": (self.n_items + 1,)}


def encode_items(items: ItemSet) -> Iterator[tuple[str, bytes]]:
    """Yield the keys and bytes of an item set's group."""
    group = f"{ITEMS}/{items.digest}"
    blob, offsets = _pack(items.texts)
    hashes = [sha256(content).hexdigest() if blob else "" for content in (blob, offsets.astype("<i8").tobytes())]
    record = ItemsRecord(items.task, items.revision, items.subjects, len(items), len(blob), *hashes)
    attributes = {"schema": SCHEMA_VERSION, **vars(record), "subjects": list(items.subjects)}
    yield f"{group}/zarr.json", json_bytes(group_document(sealed(attributes)))
    texts: dict[str, NDArray[Any]] = {"texts": np.frombuffer(blob, dtype=np.uint8), "text_offsets": offsets}
    yield from encode_arrays(group, record.specs(), {**items.arrays(), **texts})


def read_items(keys: Keys, digest: str) -> ItemSet:
    """Return an item set. Raises StoreInvalidError if it is missing, damaged, or has another digest than its name says."""
    group, where = f"{ITEMS}/{digest}", f"store {keys.where}: item set {digest[:64]!r}"
    record = parse_items_record(keys.get_many([f"{group}/zarr.json"])[0], where)
    arrays = read_arrays(keys, group, record.specs(), record.shapes())
    texts = _unpack(record, arrays.pop("texts"), arrays.pop("text_offsets"), where) if record.text_bytes else ()
    items = ItemSet(record.task, record.revision, subjects=record.subjects, texts=texts, **arrays)
    if items.digest != digest:
        raise StoreInvalidError(f"{where} is not what was written: its digest is {items.digest}")
    try:
        items.check()
    except ItemError as error:
        raise StoreInvalidError(f"{where}: {error}") from error
    return items


def parse_items_record(stored: bytes | None, where: str) -> ItemsRecord:
    """Return an item set's record from its zarr.json. Raises StoreInvalidError if that is not an item set's metadata."""
    attributes = group_attributes(stored, where)
    check_schema(attributes, where)
    try:
        return ItemsRecord(
            task=text_of(attributes, "task"),
            revision=text_of(attributes, "revision"),
            subjects=_subjects(attributes["subjects"]),
            n_items=count_of(attributes, "n_items"),
            text_bytes=count_of(attributes, "text_bytes"),
            text_sha256=text_of(attributes, "text_sha256"),
            text_offsets_sha256=text_of(attributes, "text_offsets_sha256") if attributes["schema"] >= OFFSETS_HASHED else "",
        )
    except (KeyError, ValueError, TypeError) as error:
        raise StoreInvalidError(f"{where} has attributes that are not an item set's: {type(error).__name__} {str(error)[:120]}") from error


def _subjects(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(subject, str) for subject in value) or len(set(value)) != len(value):
        raise TypeError(f"subjects is {str(value)[:40]!r}, not a list of different texts")
    return tuple(value)


def _pack(texts: tuple[str, ...]) -> tuple[bytes, NDArray[np.int64]]:
    encoded = [text.encode() for text in texts]
    return b"".join(encoded), np.cumsum([0, *map(len, encoded)], dtype=np.int64)


def _unpack(record: ItemsRecord, blob: NDArray[np.uint8], offsets: NDArray[np.int64], where: str) -> tuple[str, ...]:
    content = blob.tobytes()
    cut = sha256(offsets.astype("<i8").tobytes()).hexdigest()
    if record.text_offsets_sha256 not in ("", cut):
        raise StoreInvalidError(f"{where}: the offsets of the texts are not what was written")
    if sha256(content).hexdigest() != record.text_sha256 or offsets[0] != 0 or offsets[-1] != len(content) or np.any(np.diff(offsets) < 0):
        raise StoreInvalidError(f"{where}: the texts are not what was written")
    try:
        return tuple(content[start:end].decode() for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))
    except UnicodeDecodeError as error:
        raise StoreInvalidError(f"{where}: a text is not UTF-8") from error
