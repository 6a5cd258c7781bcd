"""Write runs to a store, in batches and safely beside other writers.

In: item sets and runs.  Out: run names, and a snapshot id per commit. A run is permanent when `commit` returns; a crash before that loses
the whole run. A commit is rebased on those of other writers; runs and item sets are compared only if both wrote the same one.
"""

import logging
import random
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import icechunk

from schemas.arguments import A_NUMBER, A_TEXT, Kind, instance_of, read_argument
from schemas.errors import HedgemarkError, RunConflictError
from schemas.itemset import ItemSet
from schemas.layout import ITEMS, RUNS, SCHEMA_VERSION
from schemas.private import shareable_message
from schemas.run import Run, RunKey
from store.backend.failures import readable
from store.backend.session_keys import SessionKeys
from store.format.packed_run import PackedRun, pack_run
from store.format.root import check_root, check_untagged
from store.format.runs import RunRecord, parse_run_record
from store.repository.commits import Removals, removal_of, removals
from store.repository.repository import BRANCH, Repository, open_repository
from store.writing.batching import INTERVAL_S, Batch
from store.writing.commit_note import commit_metadata

log = logging.getLogger(__name__)

AN_ITEM_SET = Kind(instance_of(ItemSet), "an item set, as schemas.itemset.build_item_set makes it")
A_RUN = Kind(instance_of(Run), "a schemas.run.Run")
TRIES = 200  # attempts to commit; one fails only if another writer has committed in the meantime
PAUSE_S = 0.05


def open_writer(url: str | Path, *, interval_s: float = INTERVAL_S, note: str = "", author: str | None = None) -> "Writer":
    """Open an existing store for writing. Use the writer in a `with` block, which commits at its end.

    Parameters
    ----------
    url : address of the store, such as ./hedgemark-store or s3://bucket/prefix; `init_store` creates it.
    interval_s : seconds between two commits while runs are being written; math.inf commits at the end only.
    note : why the runs are written, in one line; `store log` shows it beside each commit.
    author : who writes them; None takes the environment variable HEDGEMARK_AUTHOR, "" names nobody.

    Raises
    ------
    StoreNotFoundError
        If there is no store at this address.
    UsageError
        For an address that is not valid or cannot be written, and for a note of more than 500 characters.
    StoreInvalidError
        If the store is damaged, or has an older schema and must be migrated first.
    StoreUnreachableError, UnsafeServerError
        If the server does not answer, denies access, or does not support conditional writes.

    Examples
    --------
    See `Writer`.
    """
    interval_s, note = read_argument("interval_s", interval_s, A_NUMBER), read_argument("note", note, A_TEXT)
    author = None if author is None else read_argument("author", author, A_TEXT)
    return Writer(open_repository(url), interval_s, commit_metadata({}, note, author))


class Writer:
    """Writes runs to a store; made by `open_writer`. Runs that have not been committed are visible to this writer only.

    Several writers, also on different machines, may write to one store at the same time.

    Methods
    -------
    write : add a run and the items it answered.
    contains : whether the store has a run with this key.
    commit : make all runs written so far permanent.
    discard : drop all runs that have not been committed.

    Examples
    --------
    >>> import tempfile, numpy as np, store
    >>> from schemas.items import Item
    >>> from schemas.itemset import build_item_set
    >>> from schemas.run import Run, RunKey
    >>> folder = tempfile.TemporaryDirectory()
    >>> url = folder.name + "/logits"
    >>> store.init_store(url)
    >>> items = build_item_set("sums", [Item(id="1", answer="B", question="1 + 1 = ?", choices={"A": "3", "B": "2"})])
    >>> key = RunKey(model="m", method="dense", task="sums", items_hash=items.digest, prompt="base")
    >>> run = Run(key, np.array([[0, 4]], np.float32), np.full(1, np.nan, np.float32), np.full(1, -1, np.int32))
    >>> with store.open_writer(url) as writer:
    ...     writer.write(items, run) == key.name, writer.contains(key)
    (True, True)
    >>> with store.open_writer(url) as writer:
    ...     snapshot = writer.commit()  # nothing new to commit, so this is the newest snapshot
    >>> store.open_reader(url).snapshot == snapshot
    True
    >>> folder.cleanup()
    """

    def __init__(self, repository: Repository, interval_s: float, noted: Mapping[str, Any]) -> None:
        self._repository, self._noted = repository, noted
        self._pending: dict[str, PackedRun] = {}
        self._conflicts: list[RunConflictError] = []
        self._said: set[str] = set()
        self._start_session()
        check_root(self._keys, SCHEMA_VERSION)
        check_untagged(self._keys, BRANCH)
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
        """Return whether the store holds a run with this key, committed or pending."""
        record = self._record(key.name)
        return record is not None and record.key == key

    def write(self, items: ItemSet, run: Run, *, allow_nonfinite: bool = False, replace: bool = False) -> str:
        """Add a run and the items it answered, and return the run's name; a run that is already stored with equal content is skipped.

        Parameters
        ----------
        items : the item set, whose digest must be `run.key.items_hash`.
        run : logits (item, option) float32, raw, NaN for options that an item does not have; logsumexp (item,) float32; top_token (item,)
            int32.
        allow_nonfinite : store a run with NaN or infinite logits; analyses flag it as unreliable.
        replace : replace a stored run with the same key, even if only the record of its environment differs; the old one stays in the
            history.

        Raises
        ------
        UsageError
            For objects of other classes.
        HedgemarkError
            If the shapes of run and items do not fit, or the run answered other items.
        NonFiniteError
            For NaN or infinite logits, without `allow_nonfinite`.
        RunConflictError
            If the store has this run with other content, without `replace`.
        """
        items, run = read_argument("items", items, AN_ITEM_SET), read_argument("run", run, A_RUN)
        run.check(items.n_options, allow_nonfinite=allow_nonfinite)
        if run.key.items_hash != items.digest:
            raise HedgemarkError(f"run {run.key.name} answers items {run.key.items_hash[:12]}, not the given items {items.digest[:12]}")
        return self.add(pack_run(items, run, replace=replace))

    def add(self, packed: PackedRun) -> str:
        """Add an encoded run and return its name. Raises RunConflictError like `write`."""
        with self._batch.step():
            self._add(packed)
        return packed.key.name

    def commit(self, message: str = "") -> str:
        """Make all runs written so far permanent and return the snapshot id."""
        return self._batch.commit(shareable_message(message))

    def discard(self) -> None:
        """Drop all runs that have not been committed."""
        with self._batch.step():
            self._start_session()

    def _add(self, packed: PackedRun) -> None:
        self._drop_incomplete()
        name = packed.key.name
        record = self._record(name)
        if record is not None and record.digest == packed.digest and not (packed.replace and record.env != packed.env):
            return
        if record is not None and not (packed.replace and record.key == packed.key):
            raise RunConflictError(f"store {self._keys.where} holds run {name} with other content; --replace puts this one in its place")
        if record is None:
            self._say_if_removed(packed)
        nodes = packed.nodes if self._holds_items(packed.key.items_hash) else [*packed.items(), *packed.nodes]
        self._incomplete = True  # until every key is written, since what a failed upload leaves must never be committed
        self._keys.set_many(nodes)
        self._incomplete = False
        self._pending[name] = packed

    def _say_if_removed(self, packed: PackedRun) -> None:
        """Warn once that a run which was removed from this store is written to it again."""
        name = packed.key.name
        if name in self._said or not (found := self._removals.get(name)):
            return
        self._said.add(name)
        same = removal_of(self._removals, name, packed.digest)
        other = "" if same else " with other content"
        log.warning("run %s is written again%s; it was removed from %s %s", name, other, self._keys.where, same or found[0])

    @cached_property
    def _removals(self) -> Removals:
        """Which runs were removed before this writer began. A damaged history is no reason to lose a run that has just been made."""
        try:
            return removals(self._repository, str(self._session.snapshot_id))
        except HedgemarkError as error:
            log.warning("whether a run was removed from the store before cannot be read from its history (%s)", error)
            return {}

    def _land(self, message: str) -> str:
        """Commit the session, rebased on what other writers have committed meanwhile."""
        self._drop_incomplete()
        if not self._session.has_uncommitted_changes:
            self._pending.clear()
            return str(self._session.snapshot_id)
        with self._repository.lock(), readable(self._repository.address):
            snapshot = self._commit_or_rebase(message)
        for name in self._pending:
            log.info("wrote run %s in snapshot %s", name, snapshot)
        conflicts = self._conflicts
        self._start_session()
        if conflicts:
            raise conflicts[0]
        return snapshot

    def _commit_or_rebase(self, message: str) -> str:
        for _ in range(TRIES):
            if not self._session.has_uncommitted_changes:  # another writer has committed exactly the same
                return str(self._session.snapshot_id)
            try:
                metadata = {"runs": len(self._pending), **self._noted}
                return str(self._session.commit(message or _message(list(self._pending)), metadata=metadata))
            except icechunk.ConflictError:
                self._rebase()
        raise HedgemarkError(f"store {self._keys.where}: {TRIES} attempts to commit lost to other writers; this batch was not written")

    def _rebase(self) -> None:
        try:
            self._session.rebase(icechunk.ConflictDetector())
        except icechunk.RebaseFailedError:  # another writer committed the same item set or run: compare with what is there now
            self._add_pending_again()
        time.sleep(random.uniform(0, PAUSE_S))

    def _drop_incomplete(self) -> None:
        if self._incomplete:
            self._add_pending_again()

    def _add_pending_again(self) -> None:
        """Start a session at the newest snapshot and add everything pending again.

        A run that another writer committed with other content is left out, and reported after the others are committed.
        """
        pending, conflicts = self._pending, self._conflicts
        self._start_session()
        self._conflicts = conflicts
        for packed in pending.values():
            try:
                self._add(packed)
            except RunConflictError as error:
                conflicts.append(error)

    def _start_session(self) -> None:
        self._pending, self._conflicts = {}, []
        self._incomplete = False
        self._session = self._repository.writable()
        self._keys: SessionKeys = self._repository.keys_of(self._session)

    def _record(self, name: str) -> RunRecord | None:
        stored = self._keys.get_many([f"{RUNS}/{name}/zarr.json"])[0]
        return None if stored is None else parse_run_record(stored, name, self._keys.where)

    def _holds_items(self, digest: str) -> bool:
        return self._keys.get_many([f"{ITEMS}/{digest}/zarr.json"])[0] is not None


def _message(names: Sequence[str]) -> str:
    return f"add {names[0]}" if len(names) == 1 else f"add {len(names)} runs"
