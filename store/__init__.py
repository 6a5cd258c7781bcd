"""The store: where runs live. Everything else in this package is behind these functions.

They are imported when first asked for, so that `store --help` waits for neither Icechunk nor Zarr.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from store.reader import Reader, open_reader
    from store.repository import init_store
    from store.writer import Writer, open_writer

__all__ = ["Reader", "Writer", "init_store", "open_reader", "open_writer"]

_HOMES = {"Reader": "reader", "open_reader": "reader", "init_store": "repository", "Writer": "writer", "open_writer": "writer"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'store' has no attribute {name!r}")
    return getattr(import_module(f"store.{_HOMES[name]}"), name)
