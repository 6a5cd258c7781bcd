"""Read a store at one snapshot: its catalog, runs and item sets, every digest verified.

In: a store's address and a tag or snapshot id.  Out: a `Reader`.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from difflib import get_close_matches
from functools import cached_property, lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from schemas.arguments import A_TEXT, read_argument
from schemas.errors import RunNotFoundError, StoreInvalidError, UsageError
from schemas.itemset import ItemSet
from schemas.layout import RUNS
from schemas.run import Run
from store.backend.user_cache import cache_folder
from store.format.item_sets import read_items
from store.format.keys import FetchedKeys, Keys
from store.format.runs import RunRecord, parse_run_record, read_run, run_bytes, run_keys
from store.reading.catalog import catalog_row, read_catalog, run_names
from store.repository.repository import open_repository
from store.shown import counted

ITEM_SETS_KEPT = 16
BATCH, BATCH_BYTES = 16, 64 * 2**20  # runs fetched at once

Named = tuple[str, RunRecord]


def open_reader(url: str | Path, at: str | None = None) -> "Reader":
    """Open one snapshot of a store for reading.

    Parameters
    ----------
    url : address of the store, such as ./hedgemark-store, s3://bucket/prefix or https://host/path.
    at : tag or snapshot id; None is the newest snapshot.

    Raises
    ------
    StoreNotFoundError
        If there is no store at this address.
    UsageError
        For an address that is not valid, or an unknown tag or snapshot.
    StoreInvalidError
        If the store is damaged or of a schema that this version cannot read.
    StoreUnreachableError
        If the server does not answer or denies access.

    Examples
    --------
    See `Reader`.
    """
    snapshot, keys = open_repository(url).keys(at)
    return Reader(str(url), snapshot, keys)


class Reader:
    """One snapshot of a store, whose runs and items are verified when they are read; made by `open_reader`.

    Attributes
    ----------
    url : address of the store.
    snapshot : id of the snapshot, which every result should cite.
    catalog : polars table with one row per run, sorted by name: fields of the run's key, numbers of items, and digest.

    Methods
    -------
    run, runs : read one run, or many runs in order.
    items : read an item set by its digest, which is `run.key.items_hash`; recently used ones are kept in memory.

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
    >>> arrays = np.array([[0, 4]], np.float32), np.full(1, np.nan, np.float32), np.full(1, -1, np.int32)
    >>> with store.open_writer(url) as writer:
    ...     name = writer.write(items, Run(key, *arrays))
    >>> reader = store.open_reader(url)
    >>> reader.catalog["model"].to_list(), reader.run(name).logits.tolist()
    (['m'], [[0.0, 4.0]])
    >>> len(reader.items(items.digest))
    1
    >>> folder.cleanup()
    """

    def __init__(self, url: str, snapshot: str, keys: Keys) -> None:
        self.url, self.snapshot, self.keys = url, snapshot, keys
        self._items = lru_cache(maxsize=ITEM_SETS_KEPT)(partial(read_items, keys))

    def __repr__(self) -> str:
        """Say which store and snapshot this is, and what is in it."""
        counts = ", ".join(counted(self.catalog[field].n_unique(), field) for field in ("model", "method", "task", "prompt"))
        return f"<store.Reader of {self.url} at {self.snapshot}: {counted(self.catalog.height, 'run')}; {counts}>"

    @cached_property
    def catalog(self) -> pl.DataFrame:
        """Polars table with one row per run, sorted by name."""
        return read_catalog(self.keys, self.snapshot)

    def run(self, name: str) -> Run:
        """Return a run by name, after verifying its digest. Raises RunNotFoundError, or StoreInvalidError if it is damaged."""
        name = read_argument("name", name, A_TEXT)
        return read_run(self.keys, name, self._records([name])[name])

    def runs(self, names: Iterable[str]) -> Iterator[Run]:
        """Yield runs by name, in the order of the names; the next batches are fetched meanwhile. Raises what `run` raises."""
        workers = 1 + (os.cpu_count() or 1)
        ahead: deque[Future[list[Run]]] = deque()
        with ThreadPoolExecutor(workers) as pool:
            for batch in self._batches(names):
                ahead.append(pool.submit(self._load, batch))
                if len(ahead) > workers:
                    yield from ahead.popleft().result()
            while ahead:
                yield from ahead.popleft().result()

    def _batches(self, names: Iterable[str]) -> Iterator[list[Named]]:
        """Yield names and records of a few runs at a time, as many as fit in BATCH_BYTES, but at least one."""
        iterator = iter(names)
        while some := list(islice(iterator, BATCH)):
            batch: list[Named] = []
            records, size = self._records(some), 0
            for name in some:
                size += run_bytes(records[name])
                if batch and size > BATCH_BYTES:
                    yield batch
                    batch, size = [], run_bytes(records[name])
                batch.append((name, records[name]))
            yield batch

    def _load(self, batch: Sequence[Named]) -> list[Run]:
        fetched = FetchedKeys(self.keys, [key for name, record in batch for key in run_keys(name, record)])
        return [read_run(fetched, name, record) for name, record in batch]

    def _records(self, names: Sequence[str]) -> dict[str, RunRecord]:
        records = {}
        for name, stored in zip(names, self.keys.get_many([f"{RUNS}/{name}/zarr.json" for name in names]), strict=True):
            if stored is None:
                raise RunNotFoundError(f"no run {name!r} in {self.url} at {self.snapshot}.{self.hint(name)}")
            records[name] = parse_run_record(stored, name, self.keys.where)
            self._check_row(name, records[name])
        return records

    def _check_row(self, name: str, record: RunRecord) -> None:
        """Raise StoreInvalidError if the catalog, which may come from the cache, contradicts what is stored with a run."""
        if "catalog" in vars(self) and self._rows.get(name) != catalog_row(name, record):
            raise StoreInvalidError(
                f"the cached catalog of {self.url} at {self.snapshot} contradicts what is stored with run {name}; "
                f"delete {cache_folder('catalog')} and try again"
            )

    @cached_property
    def _rows(self) -> dict[str, tuple[Any, ...]]:
        return {row[0]: row for row in self.catalog.iter_rows()}

    def items(self, items_hash: str) -> ItemSet:
        """Return the item set with this digest, verified. Raises UsageError if no run has it, StoreInvalidError if it is damaged."""
        items_hash = read_argument("items_hash", items_hash, A_TEXT)
        try:
            return self._items(items_hash)
        except StoreInvalidError:
            if items_hash in self.catalog["items_hash"]:
                raise
            raise UsageError(f"no run in {self.url} has the item set {items_hash!r}; that of a run is run.key.items_hash") from None

    def hint(self, name: str) -> str:
        """Return the end of the message about a run that does not exist: similar names, or that the store is empty."""
        names = run_names(self.keys)
        close = get_close_matches(name, names, n=3, cutoff=0.5) or names[:3]
        return f" There is: {', '.join(close)}. Try: store ls" if close else " The store has no runs."
