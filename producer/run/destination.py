"""Where runs go: a store that is opened if it is there, and created with its first run if it is not.

So a model that cannot be loaded, or a run that must not be stored, leaves no empty store behind.
"""

import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from schemas.errors import HedgemarkError, StoreInvalidError, StoreNotFoundError
from schemas.itemset import ItemSet
from schemas.run import Run, RunKey
from store import Writer, init_store, open_writer
from store.backend.address import parse_address


class Destination:
    """A store's writer; use it in a `with` block, which commits at its end."""

    def __init__(self, url: str) -> None:
        self._url, self._stack = url, ExitStack()
        self._writer: Writer | None = None

    def __enter__(self) -> "Destination":
        """Open the store. Raises HedgemarkError where it can be neither opened nor, later, created."""
        path = parse_address(self._url).path
        if path is None:
            init_store(self._url)  # a bucket says only by being written to whether it lets us
        try:
            self._writer = self._stack.enter_context(open_writer(self._url))
        except StoreNotFoundError:
            _check_creatable(self._url, path or Path())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)

    def contains(self, key: RunKey) -> bool:
        """Return whether the store holds a run of this key."""
        return self._writer is not None and self._writer.contains(key)

    def write(self, items: ItemSet, run: Run, *, allow_nonfinite: bool = False, replace: bool = False) -> str:
        """Add a run and return its name; raises like `Writer.write`."""
        if disagreement := run.too_much_mass(items.n_options):
            raise HedgemarkError(f"run {run.key.name}: {disagreement}")
        if self._writer is None:
            run.check(items.n_options, allow_nonfinite=allow_nonfinite)
            init_store(self._url)
            self._writer = self._stack.enter_context(open_writer(self._url))
        return self._writer.write(items, run, allow_nonfinite=allow_nonfinite, replace=replace)


def _check_creatable(url: str, path: Path) -> None:
    """Raise where a folder cannot be made, so that this is known before a model is run."""
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise StoreInvalidError(f"cannot create a store at {url}: {parent} is {'not writable' if parent.is_dir() else 'a file'}")
