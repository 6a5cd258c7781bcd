"""Write a file whole or not at all: beside its place first, and moved there when it is complete."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from schemas.errors import HedgemarkError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield the path to write to. Raises HedgemarkError where it cannot be written, as on a full disk; then nothing is left behind."""
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise HedgemarkError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink()
