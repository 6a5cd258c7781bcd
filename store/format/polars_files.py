"""Files that polars reads and that may be damaged or a stranger's: every failure is one kind of error.

polars and arrow panic on some damaged files, and a panic is no `Exception`: `except Exception` lets it through to the user.
"""

from collections.abc import Callable
from typing import Any

import polars as pl


def read_polars(read: Callable[..., pl.DataFrame], source: Any, **options: Any) -> pl.DataFrame:
    """Return what a reader of polars makes of a source. Raises ValueError with its first line where it cannot be read."""
    try:
        return read(source, **options)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0][:160]) from error
