"""Copy runs between stores on any backend: stored bytes of missing runs only. Conflicting runs are listed and never overwritten.

In: the addresses of two stores, or the keys of an exported file and an address.  Out: a `Transfer`.
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
    """Runs copied, number of runs already present, runs that differ between the two sides, and the target's new snapshot."""

    copied: list[str]
    present: int
    conflicts: list[str]
    snapshot: str


def copy_runs(source: str, target: str, at: str | None = None, *, note: str = "") -> Transfer:
    """Copy every run that the target lacks from one store to another; an absent target is created.

    at : tag or snapshot id of the source; None is its newest snapshot.  note : why, recorded with the commits.
    Raises StoreInvalidError if a run to be copied is damaged; runs committed before it stay.
    """
    return copy_keys(open_repository(source).keys(at)[1], target, note=note)


def copy_keys(keys: Keys, target: str, *, whole: bool = False, note: str = "") -> Transfer:
    """Copy every run that the target lacks from some keys. Conflicting runs are listed and stay unchanged on both sides.

    whole : copy all runs in one commit; if one of them is damaged, copy none and create no store. Every run is then read twice.
    """
    records = read_records(keys)
    if whole:
        _verify(keys, records)
    init_store(target)
    present = read_records(open_repository(target).keys()[1])
    conflicts = [name for name, record in records.items() if name in present and present[name].digest != record.digest]
    missing = [name for name in records if name not in present]
    with open_writer(target, interval_s=math.inf if whole else INTERVAL_S, note=note) as writer:
        for name in missing:
            writer.add(pack_stored_run(keys, name, records[name]))
        snapshot = writer.commit(f"copy runs from {shareable(keys.where)}")
    return Transfer(missing, len(records) - len(missing) - len(conflicts), conflicts, snapshot)


def _verify(keys: Keys, records: Mapping[str, RunRecord]) -> None:
    """Read every run, and every item set once. Raises StoreInvalidError for the first damaged one."""
    verified = set()
    for name, record in records.items():
        packed = pack_stored_run(keys, name, record)
        if record.key.items_hash not in verified:
            packed.items()
            verified.add(record.key.items_hash)
