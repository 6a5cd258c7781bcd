"""Write a file completely or not at all: under a temporary name first, which is changed when the file is complete."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from schemas.errors import HedgemarkError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to. Raises HedgemarkError if the file cannot be written, as on a full disk, and leaves nothing."""
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise HedgemarkError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink()
