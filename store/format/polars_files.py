"""Read files with polars that may be damaged or untrusted, so that every failure raises the same kind of error.

polars and arrow panic on some damaged files. A panic is not an `Exception`, so `except Exception` would not catch it, and it prints a stack
trace on stderr itself.
"""

from collections.abc import Callable
from typing import Any

import polars as pl

from store.shown import silent


def read_polars(read: Callable[..., pl.DataFrame], source: Any, **options: Any) -> pl.DataFrame:
    """Return the table that a polars function reads from a source. Raises ValueError with the first line of its error message."""
    try:
        with silent(2):
            return read(source, **options)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0][:160]) from error
