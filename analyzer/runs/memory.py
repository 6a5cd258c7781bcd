"""A store held in memory, as the analyzer reads one: of data sets in a notebook, and of the tests."""

from collections.abc import Iterable, Iterator

import polars as pl

from schemas.fields import FIELDS
from schemas.itemset import ItemSet
from schemas.run import Run

COLUMNS = (*FIELDS, "items_hash", "weights_hash", "dtype", "backend", "seed")


class MemoryReader:
    """Runs and the item sets that they cite, read by the names of their keys."""

    def __init__(self, items: Iterable[ItemSet], runs: Iterable[Run], snapshot: str = "(in memory)") -> None:
        self.snapshot = snapshot
        self._items = {one.digest: one for one in items}
        self._runs = {run.key.name: run for run in runs}
        self.catalog = pl.DataFrame(
            [
                {"name": name, "parameters": run.env.parameters} | {column: getattr(run.key, column) for column in COLUMNS}
                for name, run in self._runs.items()
            ]
        )

    def run(self, name: str) -> Run:
        """Return a run by name."""
        return self._runs[name]

    def runs(self, names: Iterable[str]) -> Iterator[Run]:
        """Yield runs by name."""
        return map(self.run, names)

    def items(self, items_hash: str) -> ItemSet:
        """Return an item set by hash."""
        return self._items[items_hash]
