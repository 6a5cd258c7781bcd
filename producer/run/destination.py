"""The store that runs are written to. A store that does not exist yet is created when the first run is written.

This way a model that cannot be loaded, or a run that must not be stored, leaves no empty store behind.
"""

import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from schemas.errors import HedgemarkError, StoreInvalidError, StoreNotFoundError
from schemas.itemset import ItemSet
from schemas.run import Run, RunKey
from store.backend.address import parse_address
from store.writing.commit_note import commit_metadata

if TYPE_CHECKING:
    from store import Writer


class Destination:
    """A store's writer; use it in a `with` block, which commits at its end."""

    def __init__(self, url: str, note: str = "", author: str | None = None) -> None:
        self.url, self._stack = url, ExitStack()
        self._note, self._author = note, author
        commit_metadata({}, note, author)  # raises now, not after the first model
        self._writer: Writer | None = None

    def __enter__(self) -> "Destination":
        """Open the store. Raises HedgemarkError if it can neither be opened nor be created later."""
        from store import init_store, open_writer  # Zarr and Icechunk take as long to import as all that a request is refused for

        path = parse_address(self.url).path
        if path is None:
            init_store(self.url)  # the only way to find out whether a bucket is writable is to write to it
        try:
            self._writer = self._stack.enter_context(open_writer(self.url, note=self._note, author=self._author))
        except StoreNotFoundError:
            _check_creatable(self.url, path or Path())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)

    def contains(self, key: RunKey) -> bool:
        """Return whether the store holds a run with this key."""
        return self._writer is not None and self._writer.contains(key)

    def write(self, items: ItemSet, run: Run, *, allow_nonfinite: bool = False, replace: bool = False) -> str:
        """Add a run and return its name. Raises what `Writer.write` raises."""
        if disagreement := run.too_much_mass(items.n_options):
            raise HedgemarkError(f"run {run.key.name}: {disagreement}")
        if self._writer is None:
            from store import init_store, open_writer

            run.check(items.n_options, allow_nonfinite=allow_nonfinite)
            init_store(self.url)
            self._writer = self._stack.enter_context(open_writer(self.url, note=self._note, author=self._author))
        return self._writer.write(items, run, allow_nonfinite=allow_nonfinite, replace=replace)

    def commit(self) -> None:
        """Commit what was written, so that it need not be kept elsewhere."""
        if self._writer is not None:
            self._writer.commit()


def _check_creatable(url: str, path: Path) -> None:
    """Raise StoreInvalidError if the folder of a store cannot be created, before any time is spent on a model."""
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise StoreInvalidError(f"cannot create a store at {url}: {parent} is {'not writable' if parent.is_dir() else 'a file'}")
