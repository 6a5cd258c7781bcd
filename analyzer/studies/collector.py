"""Python's collector of cycles, which rests while runs are measured and records are made.

Estimates and records hold no cycles, and there are so many of them that going over all of them again and again takes a tenth of a report.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_rests() -> Iterator[None]:
    """Do not look for cycles in this context, or in a function that is decorated with it; afterwards all is as before."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
