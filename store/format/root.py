"""The root group of a store: what says that it is ours, of which schema, who signed it, and which tag names this snapshot."""

from typing import Any

from schemas.digest import json_digest
from schemas.errors import StoreInvalidError
from schemas.layout import (
    FORMAT,
    ITEMS,
    OLDEST_READ,
    RUNS,
    SCHEMA_VERSION,
    SEAL,
    SEALED_ROOT,
    group_document,
    root_attributes,
    seal_holds,
    sealed,
)
from store.format.documents import dump_document, group_attributes
from store.format.keys import Keys

SIGNATURE, TAG, MANIFEST = "signature", "tag", "manifest"  # attributes that the root has once a snapshot is signed, or tagged


def check_root(keys: Keys, oldest: int = OLDEST_READ) -> None:
    """Raise StoreInvalidError where a store's schema is older than `oldest`, or newer than this version, and say what to do."""
    schema = stored_schema(keys)
    if schema < oldest:
        raise StoreInvalidError(f"store {keys.where} has schema {schema}; bring it to {SCHEMA_VERSION} with: store migrate")


def stored_schema(keys: Keys) -> int:
    """Return the schema version of a store. Raises StoreInvalidError unless it is ours, whole, and not newer than we are."""
    return int(read_root(keys)["schema"])


def read_root(keys: Keys) -> dict[str, Any]:
    """Return the root's attributes without their seal. Raises like `stored_schema`."""
    stored = keys.get_many(["zarr.json"])[0]
    attributes = group_attributes(stored, f"store {keys.where}", seal=False) if stored else {}
    schema, needed = attributes.get("schema"), attributes.get("min_reader")
    if attributes.get("format") != FORMAT or not isinstance(schema, int) or not isinstance(needed, int):
        raise StoreInvalidError(f"{keys.where} holds Zarr data, but is not a Hedgemark store")
    if needed > SCHEMA_VERSION:
        raise StoreInvalidError(f"store {keys.where} needs schema {needed}; this version reads up to {SCHEMA_VERSION}: upgrade hedgemark")
    if (schema >= SEALED_ROOT or SEAL in attributes) and not seal_holds(attributes):
        raise StoreInvalidError(f"store {keys.where}: the attributes of its root are not those that were written; they are damaged")
    return {name: value for name, value in attributes.items() if name != SEAL}


def check_tag(keys: Keys, tag: str) -> None:
    """Raise StoreInvalidError where a tag leads to a snapshot that was not tagged so: the tag's file was exchanged.

    Tags that earlier versions made record nothing, and are believed.
    """
    root = read_root(keys)
    if root.get(TAG) != tag and (TAG in root or root["schema"] >= SEALED_ROOT):
        said = f"was tagged {str(root[TAG])[:80]!r}" if TAG in root else "was never tagged"
        raise StoreInvalidError(f"store {keys.where}: tag {tag!r} leads to a snapshot that {said}; its reference was exchanged or damaged")


def without_tag(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return a root's attributes as they were before a tag named the snapshot."""
    return {name: value for name, value in attributes.items() if name not in (TAG, MANIFEST)}


def root_document(attributes: dict[str, Any]) -> bytes:
    """Return the stored root group with some attributes, sealed where their schema has it so."""
    return dump_document(group_document(sealed(attributes) if attributes["schema"] >= SEALED_ROOT else attributes))


def root_nodes(schema: int = SCHEMA_VERSION) -> list[tuple[str, bytes]]:
    """Return the groups that an empty store has."""
    empty = dump_document(group_document({}))
    return [("zarr.json", root_document(root_attributes(schema))), (f"{ITEMS}/zarr.json", empty), (f"{RUNS}/zarr.json", empty)]


def contents_digest(keys: Keys) -> str:
    """Return the SHA-256 of what a snapshot holds: the name and the seal of every run and item set.

    A run's seal covers its attributes, among them the digest of its arrays; an item set's name is the digest of its arrays.
    """
    names = [f"{kind}/{name}" for kind in (ITEMS, RUNS) for name in keys.children(kind)]
    stored = keys.get_many([f"{name}/zarr.json" for name in names])
    groups = zip(names, stored, strict=True)
    return json_digest({name: group_attributes(document, f"store {keys.where}: {name[:120]}").get(SEAL) for name, document in groups})
