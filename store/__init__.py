"""The store: where runs live. Everything else in this package is behind these three functions."""

from store.reader import Reader, open_reader
from store.repository import init_store
from store.writer import Writer, open_writer

__all__ = ["Reader", "Writer", "init_store", "open_reader", "open_writer"]
