"""Read a store's metadata documents without trusting them: limited size and depth, plain JSON, verified seal.

In: the bytes of a zarr.json.  Out: attributes, or a StoreInvalidError.
"""

from collections.abc import Mapping
from typing import Any

from schemas.errors import StoreInvalidError
from schemas.json_text import parse_json
from schemas.layout import MAX_DOCUMENT_BYTES, MAX_JSON_DEPTH, OLDEST_READ, READABLE, SCHEMA_VERSION, group_document, seal_holds
from schemas.run import LARGEST


def parse_document(stored: bytes | None, where: str) -> dict[str, Any]:
    """Return the JSON object of a document. Raises StoreInvalidError if it is absent, too large, too deeply nested or not an object."""
    if stored is None:
        raise StoreInvalidError(f"{where} is missing")
    if len(stored) > MAX_DOCUMENT_BYTES:
        raise StoreInvalidError(f"{where} has {len(stored)} bytes of metadata; at most {MAX_DOCUMENT_BYTES} are read")
    try:
        document = parse_json(stored.decode(), finite=True)
    except ValueError as error:
        raise StoreInvalidError(f"{where} is not JSON we read: {str(error)[:200]}") from error
    shallow = stored.count(b"{") + stored.count(b"[") <= MAX_JSON_DEPTH  # true for most, which spares walking through them
    if not isinstance(document, dict) or not (shallow or _depth(document) <= MAX_JSON_DEPTH):
        raise StoreInvalidError(f"{where} is not a JSON object of at most {MAX_JSON_DEPTH} levels")
    return document


def group_attributes(stored: bytes | None, where: str, *, seal: bool = True) -> dict[str, Any]:
    """Return a group's attributes. Raises StoreInvalidError if it is not a plain group or, with `seal`, if its seal is wrong."""
    document = parse_document(stored, where)
    attributes = document.get("attributes")
    if not isinstance(attributes, dict) or document != group_document(attributes):
        raise StoreInvalidError(f"{where} is not a plain Zarr v3 group")
    if seal and not seal_holds(attributes):
        raise StoreInvalidError(f"{where}: the attributes are not those that were written; the metadata are damaged")
    return attributes


def check_schema(attributes: Mapping[str, Any], where: str) -> None:
    """Raise StoreInvalidError if the attributes of a run or an item set have a schema version that this version does not read."""
    if attributes.get("schema") not in READABLE:
        raise StoreInvalidError(f"{where} has schema {attributes.get('schema')!r}; this version reads {OLDEST_READ} to {SCHEMA_VERSION}")


def text_of(attributes: dict[str, Any], name: str) -> str:
    """Return an attribute that must be a text. Raises KeyError if it is absent, TypeError if it is something else."""
    value = attributes[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is {str(value)[:40]!r}, not a text")
    return value


def count_of(attributes: dict[str, Any], name: str) -> int:
    """Return an attribute that must be a count. Raises KeyError if it is absent, TypeError if it is not a whole number from 0."""
    value = attributes[name]
    if type(value) is not int or not 0 <= value < LARGEST:
        raise TypeError(f"{name} is {str(value)[:40]!r}, not a whole number from 0 to below 2^63")
    return value




def _depth(value: Any) -> int:
    """Return the nesting depth of a value; without recursion, since a hostile value could be nested very deeply."""
    deepest, stack = 0, [(value, 1)]
    while stack:
        current, depth = stack.pop()
        deepest = max(deepest, depth)
        children = current.values() if isinstance(current, dict) else current if isinstance(current, list) else ()
        stack.extend((child, depth + 1) for child in children)
    return deepest
