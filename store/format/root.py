"""The root group of a store: what says that it is ours, and of which schema."""

from schemas.errors import StoreInvalidError
from schemas.layout import FORMAT, ITEMS, OLDEST_READ, RUNS, SCHEMA_VERSION, group_document, root_attributes
from store.format.documents import dump_document, group_attributes
from store.format.keys import Keys


def check_root(keys: Keys, oldest: int = OLDEST_READ) -> None:
    """Raise StoreInvalidError where a store's schema is older than `oldest`, or newer than this version, and say what to do."""
    schema = stored_schema(keys)
    if schema < oldest:
        raise StoreInvalidError(f"store {keys.where} has schema {schema}; bring it to {SCHEMA_VERSION} with: store migrate")


def stored_schema(keys: Keys) -> int:
    """Return the schema version of a store. Raises StoreInvalidError unless it is ours and not newer than we are."""
    stored = keys.get_many(["zarr.json"])[0]
    attributes = group_attributes(stored, f"store {keys.where}", seal=False) if stored else {}
    schema, needed = attributes.get("schema"), attributes.get("min_reader")
    if attributes.get("format") != FORMAT or not isinstance(schema, int) or not isinstance(needed, int):
        raise StoreInvalidError(f"{keys.where} holds Zarr data, but is not a Hedgemark store")
    if needed > SCHEMA_VERSION:
        raise StoreInvalidError(f"store {keys.where} needs schema {needed}; this version reads up to {SCHEMA_VERSION}: upgrade hedgemark")
    return schema


def root_nodes(schema: int = SCHEMA_VERSION) -> list[tuple[str, bytes]]:
    """Return the groups that an empty store has."""
    empty = dump_document(group_document({}))
    root = dump_document(group_document(root_attributes(schema)))
    return [("zarr.json", root), (f"{ITEMS}/zarr.json", empty), (f"{RUNS}/zarr.json", empty)]
