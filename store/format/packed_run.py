"""A run packed for a store: the bytes it will have there, and where its items come from should they be missing.

In: a run with its items, or a run of another store.  Out: a `Parcel` for `Writer.add`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from schemas.errors import StoreInvalidError
from schemas.itemset import ItemSet
from schemas.layout import ITEMS, RUNS
from schemas.run import Run, RunKey
from store.format.arrays import array_keys
from store.format.item_sets import encode_items, parse_items_record, read_items
from store.format.keys import Keys
from store.format.runs import RunRecord, encode_run, read_run, run_keys

Nodes = list[tuple[str, bytes]]


@dataclass(frozen=True)
class Parcel:
    """What a commit needs of a run, also a second time should another writer get in between."""

    key: RunKey
    digest: str
    nodes: Nodes
    items: Callable[[], Nodes]
    replace: bool = False


def pack_run(items: ItemSet, run: Run, *, replace: bool = False) -> Parcel:
    """Return a new run as a parcel. Raises HedgemarkError where its arrays do not fit the layout."""
    return Parcel(run.key, run.digest, list(encode_run(run, items.n_options)), lambda: list(encode_items(items)), replace)


def pack_stored_run(keys: Keys, name: str, record: RunRecord) -> Parcel:
    """Return a run of another store as a parcel: verified, and its bytes as they are.

    Raises StoreInvalidError where it is damaged.
    """
    read_run(keys, name, record)
    group = f"{RUNS}/{name}"
    nodes = _raw(keys, [f"{group}/zarr.json", *run_keys(name, record)])
    return Parcel(record.key, record.digest, nodes, partial(_stored_items, keys, record.key.items_hash))


def _stored_items(keys: Keys, digest: str) -> Nodes:
    read_items(keys, digest)
    group = f"{ITEMS}/{digest}"
    record = parse_items_record(keys.get_many([f"{group}/zarr.json"])[0], f"store {keys.where}: item set {digest}")
    return _raw(keys, [f"{group}/zarr.json", *array_keys(group, record.specs(), record.shapes())])


def _raw(keys: Keys, names: list[str]) -> Nodes:
    nodes = []
    for name, value in zip(names, keys.get_many(names), strict=True):
        if value is None:
            raise StoreInvalidError(f"store {keys.where}: {name} is missing")
        nodes.append((name, value))
    return nodes
