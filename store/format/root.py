"""The root group of a store: it marks a Hedgemark store and records the schema version, the signature, and the tag of a tagged snapshot."""

from typing import Any

from schemas.digest import json_digest
from schemas.errors import StoreInvalidError
from schemas.json_text import json_bytes
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
from store.format.documents import group_attributes
from store.format.keys import Keys

SIGNATURE, SIGNED, TAG, MANIFEST = "signature", "signed", "tag", "manifest"  # attributes of the root of a signed or tagged snapshot


def check_root(keys: Keys, oldest: int = OLDEST_READ) -> None:
    """Raise StoreInvalidError, which says what to do, if a store's schema is older than `oldest` or newer than this version reads."""
    schema = stored_schema(keys)
    if schema < oldest:
        raise StoreInvalidError(f"store {keys.where} has schema {schema}; bring it to {SCHEMA_VERSION} with: store migrate")


def stored_schema(keys: Keys) -> int:
    """Return a store's schema version. Raises StoreInvalidError if it is no Hedgemark store, damaged, or newer than this version reads."""
    return int(read_root(keys)["schema"])


def read_root(keys: Keys) -> dict[str, Any]:
    """Return the root's attributes without their seal. Raises what `stored_schema` raises."""
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
    """Raise StoreInvalidError if the snapshot that a tag leads to does not record this tag: the tag's file was replaced.

    Snapshots that earlier versions tagged record no tag, and are accepted.
    """
    root = read_root(keys)
    if root.get(TAG) != tag and (TAG in root or root["schema"] >= SEALED_ROOT):
        recorded = f"was tagged {str(root[TAG])[:80]!r}" if TAG in root else "was never tagged"
        raise StoreInvalidError(f"store {keys.where}: tag {tag!r} leads to a snapshot that {recorded}; its file was replaced or damaged")


def check_untagged(keys: Keys, branch: str) -> None:
    """Raise StoreInvalidError if a branch leads to a snapshot that records a tag: no branch does, so its file was replaced."""
    if tag := read_root(keys).get(TAG):
        raise StoreInvalidError(
            f"store {keys.where}: branch {branch!r} leads to the snapshot of tag {str(tag)[:80]!r}; its file was replaced or damaged"
        )


def without_tag(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return a root's attributes without those that were added when the snapshot was tagged."""
    return {name: value for name, value in attributes.items() if name not in (TAG, MANIFEST)}


def root_document(attributes: dict[str, Any]) -> bytes:
    """Return the stored bytes of the root group with these attributes, sealed if their schema version has a seal there."""
    return json_bytes(group_document(sealed(attributes) if attributes["schema"] >= SEALED_ROOT else attributes))


def root_nodes(schema: int = SCHEMA_VERSION) -> list[tuple[str, bytes]]:
    """Return the keys and bytes of an empty store."""
    empty = json_bytes(group_document({}))
    return [("zarr.json", root_document(root_attributes(schema))), (f"{ITEMS}/zarr.json", empty), (f"{RUNS}/zarr.json", empty)]


def contents_digest(keys: Keys) -> str:
    """Return the SHA-256 over a snapshot's contents: the name and the seal of every run and item set.

    A run's seal covers its attributes, among them the digest of its arrays; an item set's name is the digest of its arrays.
    """
    names = [f"{kind}/{name}" for kind in (ITEMS, RUNS) for name in keys.children(kind)]
    stored = keys.get_many([f"{name}/zarr.json" for name in names])
    groups = zip(names, stored, strict=True)
    return json_digest({name: group_attributes(document, f"store {keys.where}: {name[:120]}").get(SEAL) for name, document in groups})
