"""Encode a run as the bytes that a store will hold, with a function that encodes its items in case the store lacks them.

In: a run with its items, or a run of another store.  Out: a `PackedRun` for `Writer.add`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from schemas.errors import StoreInvalidError
from schemas.itemset import ItemSet
from schemas.layout import ITEMS, RUNS
from schemas.run import Environment, Run, RunKey
from store.format.arrays import array_keys
from store.format.item_sets import encode_items, parse_items_record, read_items
from store.format.keys import Keys
from store.format.runs import RunRecord, encode_run, read_run, run_keys

Nodes = list[tuple[str, bytes]]


@dataclass(frozen=True)
class PackedRun:
    """A run encoded for a store; it can be written again if another writer's commit came in between.

    env     : what the run says of its machine; one that replaces is written where this alone differs.
    nodes   : (key, bytes) of the run.
    items   : returns (key, bytes) of the item set; called only if the store lacks it.
    replace : replace a stored run with the same key.
    """

    key: RunKey
    digest: str
    env: Environment
    nodes: Nodes
    items: Callable[[], Nodes]
    replace: bool = False


def pack_run(items: ItemSet, run: Run, *, replace: bool = False) -> PackedRun:
    """Return a new run encoded for a store. Raises HedgemarkError if its arrays do not fit the layout."""
    return PackedRun(run.key, run.digest, run.env, list(encode_run(run, items.n_options)), lambda: list(encode_items(items)), replace)


def pack_stored_run(keys: Keys, name: str, record: RunRecord) -> PackedRun:
    """Return a run of another store with its stored bytes unchanged, after verifying them.

    Raises StoreInvalidError if the run is damaged.
    """
    read_run(keys, name, record)
    group = f"{RUNS}/{name}"
    nodes = _raw(keys, [f"{group}/zarr.json", *run_keys(name, record)])
    return PackedRun(record.key, record.digest, record.env, nodes, partial(_stored_items, keys, record.key.items_hash))


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
