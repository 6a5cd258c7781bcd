"""Push and pull runs between stores of any backend: raw chunks, only what is missing, conflicts listed and never merged.

In: two stores' addresses, or the keys of an exported file and an address.  Out: a `Transfer`.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from schemas.private import shareable
from store.format.keys import Keys
from store.format.packed_run import pack_stored_run
from store.format.runs import RunRecord
from store.reading.catalog import read_records
from store.repository.repository import init_store, open_repository
from store.writing.batching import INTERVAL_S
from store.writing.writer import open_writer


class Transfer(NamedTuple):
    """What a transfer did: the runs copied, how many were there already, and those that both sides hold with other content."""

    copied: list[str]
    present: int
    conflicts: list[str]
    snapshot: str


def copy_runs(source: str, target: str, at: str | None = None) -> Transfer:
    """Copy every run of a store that another lacks; a target that is not there yet is created.

    at : tag or snapshot of the source.
    Raises StoreInvalidError where a run to be copied is damaged; runs committed before it stay.
    """
    return copy_keys(open_repository(source).keys(at)[1], target)


def copy_keys(keys: Keys, target: str, *, whole: bool = False) -> Transfer:
    """Copy every run that a store lacks from keys. Conflicts are listed, and left as they are on both sides.

    whole : all runs in one commit, or nothing where one of them is damaged, not even a new store; every run is then read twice.
    """
    records = read_records(keys)
    if whole:
        _verify(keys, records)
    init_store(target)
    there = read_records(open_repository(target).keys()[1])
    conflicts = [name for name, record in records.items() if name in there and there[name].digest != record.digest]
    missing = [name for name in records if name not in there]
    with open_writer(target, interval_s=math.inf if whole else INTERVAL_S) as writer:
        for name in missing:
            writer.add(pack_stored_run(keys, name, records[name]))
        snapshot = writer.commit(f"copy runs from {shareable(keys.where)}")
    return Transfer(missing, len(records) - len(missing) - len(conflicts), conflicts, snapshot)


def _verify(keys: Keys, records: Mapping[str, RunRecord]) -> None:
    """Read every run, and every item set once. Raises StoreInvalidError for the first that is damaged."""
    verified = set()
    for name, record in records.items():
        parcel = pack_stored_run(keys, name, record)
        if record.key.items_hash not in verified:
            parcel.items()
            verified.add(record.key.items_hash)
