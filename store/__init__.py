"""The store, which keeps runs: these functions and classes are its public interface, everything else in this package is internal.

They are imported when they are first used, so that `store --help` does not wait for Icechunk and Zarr.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from store.reading.dataset import open_dataset
    from store.reading.reader import Reader, open_reader
    from store.repository.repository import init_store
    from store.writing.writer import Writer, open_writer

__all__ = ["Reader", "Writer", "init_store", "open_dataset", "open_reader", "open_writer"]

_HOMES = {
    "Reader": "store.reading.reader",
    "open_dataset": "store.reading.dataset",
    "open_reader": "store.reading.reader",
    "init_store": "store.repository.repository",
    "Writer": "store.writing.writer",
    "open_writer": "store.writing.writer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'store' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
