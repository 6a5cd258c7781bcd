"""Copy runs between stores on any backend: stored bytes of missing runs only. Conflicting runs are listed and never overwritten.

In: the addresses of two stores, or the keys of an exported file and an address.  Out: a `Transfer`. A run that was removed from the target
is copied only if it is named. A removal itself is not copied: the target keeps the runs that were removed from the source.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from schemas.errors import RunNotFoundError
from schemas.private import shareable
from store.exchange.progress import Tell, silent, told
from store.format.keys import Keys
from store.format.packed_run import pack_stored_run
from store.format.runs import RunRecord
from store.reading.catalog import read_records, run_names
from store.repository.commits import Removed, removal_of, removals
from store.repository.repository import Repository, init_store, open_repository
from store.writing.batching import INTERVAL_S
from store.writing.writer import open_writer


class Wish(NamedTuple):
    """How runs are to be copied.

    note    : why, recorded with the commits.
    restore : beginnings of names; runs with such a name are copied even if they were removed from the target.
    tell    : is told now and then how many runs were copied.
    """

    note: str = ""
    restore: Sequence[str] = ()
    tell: Tell = silent


NO_WISH = Wish()


class Transfer(NamedTuple):
    """What became of the runs of a source.

    copied    : names of the runs that were copied.  present : number of runs that were there already.
    conflicts : names of the runs that differ between the two sides.
    removed   : runs that were not copied, since they had been removed from the target.
    kept      : runs that the target still has, although they were removed from the source.
    snapshot  : id of the target's newest snapshot.
    """

    copied: list[str]
    present: int
    conflicts: list[str]
    removed: Mapping[str, Removed]
    kept: Mapping[str, Removed]
    snapshot: str


def copy_runs(source: str, target: str, at: str | None = None, wish: Wish = NO_WISH) -> Transfer:
    """Copy every run that the target lacks from one store to another; an absent target is created.

    at : tag or snapshot id of the source; None is its newest snapshot.
    Raises StoreInvalidError if a run to be copied is damaged; runs committed before it stay. RunNotFoundError if no run begins with
    a name to be restored.
    """
    repository = open_repository(source)
    snapshot, keys = repository.keys(at)
    done = copy_keys(keys, target, wish)
    return done._replace(kept=_kept(repository, snapshot, read_records(keys), target))


def copy_keys(keys: Keys, target: str, wish: Wish = NO_WISH, *, whole: bool = False) -> Transfer:
    """Copy every run that the target lacks from some keys. Conflicting runs are listed and stay unchanged on both sides.

    whole : copy all runs in one commit; if one of them is damaged, copy none and create no store. Every run is then read twice.
    """
    records = read_records(keys)
    _check_restored(wish.restore, records, keys.where)
    if whole:
        _verify(keys, records)
    init_store(target)
    repository = open_repository(target)
    before, there = repository.keys()
    present = read_records(there)
    conflicts = [name for name, record in records.items() if name in present and present[name].digest != record.digest]
    missing = [name for name in records if name not in present]
    found = removals(repository, before) if missing else {}
    was_there = {name: removal_of(found, name, records[name].digest) for name in missing if not name.startswith(tuple(wish.restore))}
    removed = {name: removal for name, removal in was_there.items() if removal}
    missing = [name for name in missing if name not in removed]
    with open_writer(target, interval_s=math.inf if whole else INTERVAL_S, note=wish.note) as writer:
        for name in told(missing, "copied", wish.tell, len(missing)):
            writer.add(pack_stored_run(keys, name, records[name]))
        snapshot = writer.commit(f"copy runs from {shareable(keys.where)}")
    same = len(records) - len(missing) - len(conflicts) - len(removed)
    return Transfer(missing, same, conflicts, removed, {}, snapshot)


def _kept(source: Repository, snapshot: str, records: Mapping[str, RunRecord], target: str) -> dict[str, Removed]:
    """Return the runs that the target has and the source lacks because they were removed from it.

    A remote source that this user never wrote to is not asked: the snapshots of its history have not been screened.
    """
    there = open_repository(target).keys()[1]
    others = [name for name in run_names(there) if name not in records]
    found = removals(source, snapshot) if others and source.trusted else {}
    stored = read_records(there, [name for name in others if name in found])
    kept = {name: removal_of(found, name, record.digest) for name, record in stored.items()}
    return {name: removal for name, removal in kept.items() if removal}


def _check_restored(restore: Sequence[str], records: Mapping[str, RunRecord], where: str) -> None:
    for start in restore:
        if not any(name.startswith(start) for name in records):
            raise RunNotFoundError(f"no run of {where} begins with {start!r}, so there is none to restore")


def _verify(keys: Keys, records: Mapping[str, RunRecord]) -> None:
    """Read every run, and every item set once. Raises StoreInvalidError for the first damaged one."""
    verified = set()
    for name, record in records.items():
        packed = pack_stored_run(keys, name, record)
        if record.key.items_hash not in verified:
            packed.items()
            verified.add(record.key.items_hash)
