"""Write a file completely or not at all: under a temporary name first, which is changed when the file is complete.

In: a path and what goes there.  Out: the file. An older file survives a full disk.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from schemas.errors import HedgemarkError, UsageError
from store.shown import lines


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to. Raises HedgemarkError if the file cannot be written, as on a full disk, and leaves nothing.

    A link keeps pointing where it does, an older file's permissions stay, and a device or pipe is written to as it is.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        with _in_words(path):
            yield target
        return
    partial = target.with_name(f".{target.name[:100]}.{uuid4().hex[:8]}")
    try:
        with _in_words(path):
            yield partial
            if target.exists():
                shutil.copymode(target, partial)
            partial.replace(target)
    finally:
        with suppress(OSError):
            partial.unlink()


def write_document(path: Path, content: str | bytes) -> Path:
    """Write a document whole and return its path; a text without what steers a terminal.

    Raises UsageError for a folder that is not there or cannot be written to, HedgemarkError where the disk is full.
    """
    check_writable(path)
    with whole_file(path) as partial:
        partial.write_bytes(lines(content).encode() if isinstance(content, str) else content)
    return path


def check_writable(path: Path) -> None:
    """Raise UsageError if the folder of a file is not there or cannot be written to."""
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write {path}: {path.parent} is no folder that can be written to")


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HedgemarkError(f"{path} cannot be written: {error.strerror or error}") from error
