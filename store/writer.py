"""Write runs to a store: batched, atomic, safe beside other writers.

In: item sets and runs.  Out: run names, and a snapshot id per commit. A run is acknowledged when `commit` returns; until then a
crash loses it whole. Other writers' commits are rebased upon; only the same run or item set written twice is looked at again.
"""

import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import icechunk

from schemas.errors import HedgemarkError, RunConflictError
from schemas.itemset import ItemSet
from schemas.layout import ITEMS, RUNS
from schemas.run import Run, RunKey
from store.batching import Batch
from store.failures import readable
from store.item_sets import encode_items
from store.keys import SessionKeys
from store.repository import Repository, check_root, open_repository
from store.runs import RunRecord, encode_run, parse_run_record

log = logging.getLogger(__name__)

TRIES = 200  # commits lost to other writers before giving up; each one lost means that another writer landed
PAUSE_S = 0.05


def open_writer(url: str) -> "Writer":
    """Open a store for writing; use it in a `with` block, which commits at its end. Raises like open_reader."""
    return Writer(open_repository(url))


@dataclass(frozen=True)
class _Pending:
    """What a commit needs again should another writer get in between."""

    items: ItemSet
    run: Run
    replace: bool


class Writer:
    """Writes runs to main. What has not been committed is visible to this writer only."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._pending: dict[str, _Pending] = {}
        self._begin()
        check_root(self._keys)
        self._batch = Batch(self._land)

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
        with self._batch.step():
            self._add(_Pending(items, run, replace))
        return run.key.name

    def commit(self, message: str = "") -> str:
        """Make everything written so far permanent and return the snapshot id."""
        return self._batch.commit(message)

    def _add(self, pending: _Pending) -> None:
        name = pending.run.key.name
        record = self._record(name)
        if record is not None and record.digest == pending.run.digest:
            return
        if record is not None and not (pending.replace and record.key == pending.run.key):
            raise RunConflictError(f"store {self._keys.where} holds run {name} with other content; --replace puts this one in its place")
        if not self._holds_items(pending.items.digest):
            self._keys.set_many(encode_items(pending.items))
        self._keys.set_many(encode_run(pending.run, pending.items.n_options))
        self._pending[name] = pending

    def _land(self, message: str) -> str:
        """Commit the session, after rebasing upon whatever other writers committed meanwhile."""
        if not self._session.has_uncommitted_changes:
            self._pending.clear()
            return str(self._session.snapshot_id)
        with self._repository.lock(), readable(self._repository.address):
            snapshot = self._commit_or_rebase(message or _message(list(self._pending)))
        for name in self._pending:
            log.info("wrote run %s in snapshot %s", name, snapshot)
        self._pending.clear()
        self._begin()
        return snapshot

    def _commit_or_rebase(self, message: str) -> str:
        for _ in range(TRIES):
            try:
                return str(self._session.commit(message, metadata={"runs": len(self._pending)}))
            except icechunk.ConflictError:
                self._rebase()
        raise HedgemarkError(f"store {self._keys.where}: {TRIES} commits in a row lost to other writers; this batch was not written")

    def _rebase(self) -> None:
        try:
            self._session.rebase(icechunk.ConflictDetector())
        except icechunk.RebaseFailedError:  # another writer brought the same item set or run: look again at what is there now
            pending, self._pending = self._pending, {}
            self._begin()
            for one in pending.values():
                self._add(one)
        time.sleep(random.uniform(0, PAUSE_S))

    def _begin(self) -> None:
        self._session = self._repository.writable()
        self._keys = SessionKeys(self._session, str(self._repository.address))

    def _record(self, name: str) -> RunRecord | None:
        stored = self._keys.get_many([f"{RUNS}/{name}/zarr.json"])[0]
        return None if stored is None else parse_run_record(stored, name, self._keys.where)

    def _holds_items(self, digest: str) -> bool:
        return self._keys.get_many([f"{ITEMS}/{digest}/zarr.json"])[0] is not None


def _message(names: Sequence[str]) -> str:
    return f"add {names[0]}" if len(names) == 1 else f"add {len(names)} runs"
