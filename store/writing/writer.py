"""Write runs to a store: batched, atomic, safe beside other writers.

In: item sets and runs.  Out: run names, and a snapshot id per commit. A run is acknowledged when `commit` returns; until then a
crash loses it whole. Other writers' commits are rebased upon; only the same run or item set written twice is looked at again.
"""

import logging
import random
import time
from collections.abc import Sequence

import icechunk

from schemas.errors import HedgemarkError, RunConflictError
from schemas.itemset import ItemSet
from schemas.layout import ITEMS, RUNS, SCHEMA_VERSION
from schemas.run import Run, RunKey
from store.backend.failures import readable
from store.backend.session_keys import SessionKeys
from store.format.packed_run import Parcel, pack_run
from store.format.root import check_root
from store.format.runs import RunRecord, parse_run_record
from store.repository.repository import Repository, open_repository
from store.writing.batching import INTERVAL_S, Batch

log = logging.getLogger(__name__)

TRIES = 200  # commits lost to other writers before giving up; each one lost means that another writer landed
PAUSE_S = 0.05


def open_writer(url: str, *, interval_s: float = INTERVAL_S) -> "Writer":
    """Open a store for writing; use it in a `with` block, which commits at its end.

    interval_s : seconds after a commit until the next one is due.
    Raises like open_reader.
    """
    return Writer(open_repository(url), interval_s)


class Writer:
    """Writes runs to main. What has not been committed is visible to this writer only."""

    def __init__(self, repository: Repository, interval_s: float) -> None:
        self._repository = repository
        self._pending: dict[str, Parcel] = {}
        self._conflicts: list[RunConflictError] = []
        self._begin()
        check_root(self._keys, SCHEMA_VERSION)
        self._batch = Batch(self._land, interval_s)

    def __enter__(self) -> "Writer":
        self._batch.open()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.commit()
        finally:
            self._batch.close()

    def contains(self, key: RunKey) -> bool:
        """Return whether the store holds a run of this key, committed or pending."""
        record = self._record(key.name)
        return record is not None and record.key == key

    def write(self, items: ItemSet, run: Run, *, allow_nonfinite: bool = False, replace: bool = False) -> str:
        """Add a run and the items it answered, and return the run's name.

        allow_nonfinite : store NaN or infinite logits; they are flagged wherever they are read.
        replace         : put the run in place of another of the same key, which stays in the history.
        Raises RunConflictError where the store holds this run with other content; equal content is a no-op.
        """
        run.check(items.n_options, allow_nonfinite=allow_nonfinite)
        if run.key.items_hash != items.digest:
            raise HedgemarkError(f"run {run.key.name} answers items {run.key.items_hash[:12]}, not the given items {items.digest[:12]}")
        return self.add(pack_run(items, run, replace=replace))

    def add(self, parcel: Parcel) -> str:
        """Add a packed run and return its name. Raises RunConflictError like `write`."""
        with self._batch.step():
            self._add(parcel)
        return parcel.key.name

    def commit(self, message: str = "") -> str:
        """Make everything written so far permanent and return the snapshot id."""
        return self._batch.commit(message)

    def discard(self) -> None:
        """Forget what has not been committed."""
        with self._batch.step():
            self._begin()

    def _add(self, parcel: Parcel) -> None:
        self._mend()
        name = parcel.key.name
        record = self._record(name)
        if record is not None and record.digest == parcel.digest:
            return
        if record is not None and not (parcel.replace and record.key == parcel.key):
            raise RunConflictError(f"store {self._keys.where} holds run {name} with other content; --replace puts this one in its place")
        nodes = parcel.nodes if self._holds_items(parcel.key.items_hash) else [*parcel.items(), *parcel.nodes]
        self._torn = True  # until every key is in: what a failing upload leaves behind must never be committed
        self._keys.set_many(nodes)
        self._torn = False
        self._pending[name] = parcel

    def _land(self, message: str) -> str:
        """Commit the session, after rebasing upon whatever other writers committed meanwhile."""
        self._mend()
        if not self._session.has_uncommitted_changes:
            self._pending.clear()
            return str(self._session.snapshot_id)
        with self._repository.lock(), readable(self._repository.address):
            snapshot = self._commit_or_rebase(message)
        for name in self._pending:
            log.info("wrote run %s in snapshot %s", name, snapshot)
        conflicts = self._conflicts
        self._begin()
        if conflicts:
            raise conflicts[0]
        return snapshot

    def _commit_or_rebase(self, message: str) -> str:
        for _ in range(TRIES):
            if not self._session.has_uncommitted_changes:  # another writer brought exactly the same
                return str(self._session.snapshot_id)
            try:
                return str(self._session.commit(message or _message(list(self._pending)), metadata={"runs": len(self._pending)}))
            except icechunk.ConflictError:
                self._rebase()
        raise HedgemarkError(f"store {self._keys.where}: {TRIES} commits in a row lost to other writers; this batch was not written")

    def _rebase(self) -> None:
        try:
            self._session.rebase(icechunk.ConflictDetector())
        except icechunk.RebaseFailedError:  # another writer brought the same item set or run: look again at what is there now
            self._again()
        time.sleep(random.uniform(0, PAUSE_S))

    def _mend(self) -> None:
        if self._torn:
            self._again()

    def _again(self) -> None:
        """Start from what the store holds now and add everything pending once more.

        A run that another writer brought with other content is left out, and reported once the others are safe.
        """
        pending, conflicts = self._pending, self._conflicts
        self._begin()
        self._conflicts = conflicts
        for parcel in pending.values():
            try:
                self._add(parcel)
            except RunConflictError as error:
                conflicts.append(error)

    def _begin(self) -> None:
        self._pending, self._conflicts = {}, []
        self._torn = False
        self._session = self._repository.writable()
        self._keys: SessionKeys = self._repository.keys_of(self._session)

    def _record(self, name: str) -> RunRecord | None:
        stored = self._keys.get_many([f"{RUNS}/{name}/zarr.json"])[0]
        return None if stored is None else parse_run_record(stored, name, self._keys.where)

    def _holds_items(self, digest: str) -> bool:
        return self._keys.get_many([f"{ITEMS}/{digest}/zarr.json"])[0] is not None


def _message(names: Sequence[str]) -> str:
    return f"add {names[0]}" if len(names) == 1 else f"add {len(names)} runs"
