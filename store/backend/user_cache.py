"""The user's cache folder, which may be deleted at any time; that costs time and nothing else.

It is `$HEDGEMARK_CACHE`, else `hedgemark` in the platform's folder for caches (`$XDG_CACHE_HOME` or `~/.cache` on Linux). All three
commands keep their caches in it. If it cannot be written, one warning says so and the command continues without a cache.
"""

import atexit
import functools
import hashlib
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_dir

from schemas.errors import HedgemarkError

log = logging.getLogger(__name__)

KEPT_DAYS = 30  # without being written to


def cache_folder(kind: str = "") -> Path:
    """Return the folder for one kind of cached file, or with "" the folder for all kinds; it need not exist."""
    folder = os.environ.get("HEDGEMARK_CACHE") or user_cache_dir("hedgemark", appauthor=False)
    if folder.startswith("~"):  # the user has no home; unchanged, this would be a folder named ~ in the working directory
        folder = os.path.join(os.devnull, "hedgemark")  # a path that cannot be written
    return Path(folder) / kind


def existing_cache_folder() -> Path:
    """Return the cache folder, which is created if absent; if it cannot be written, warn and return a temporary folder instead.

    Raises HedgemarkError if no temporary folder can be created either.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        warn_once(error)
        return _temporary_folder()
    return folder


def ensure_temporary_folder() -> None:
    """Let temporary files go to the cache folder or to memory if no folder for them can be written, with one warning.

    Raises HedgemarkError if those cannot be written either: torch makes a temporary folder when it is imported.
    """
    try:
        tempfile.gettempdir()
    except OSError as error:
        for folder in (cache_folder(), Path("/dev/shm")):
            with suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=folder).close()
                tempfile.tempdir = str(folder)
                log.warning("no folder for temporary files can be written; %s is used. Name another one with TMPDIR", folder)
                return
        raise HedgemarkError("no folder for temporary files can be written, and torch needs one; name one with TMPDIR") from error


def remember(fact: Path) -> None:
    """Create the empty file that records a fact; if that fails, the fact will be established anew next time."""
    try:
        fact.parent.mkdir(parents=True, exist_ok=True)
        fact.touch()
    except OSError as error:
        warn_once(error)


def is_remembered(fact: Path) -> bool:
    """Return whether the file that records a fact exists; False if its folder cannot be read."""
    try:
        return fact.is_file()
    except OSError:
        return False


def kept_text(path: Path, make: Callable[[], str]) -> str:
    """Return the text of a cached file; if it is absent, or was damaged or changed, the text is made and kept.

    The file begins with the digest of the rest.
    """
    try:
        digest, _, text = path.read_bytes().decode().partition("\n")
        if digest == _digest(text):
            return text
    except (OSError, ValueError):  # not cached yet, or no text
        pass
    made = make()
    scratch = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(f"{_digest(made)}\n{made}".encode())
        scratch.replace(path)
    except OSError as error:
        with suppress(OSError):
            scratch.unlink()
        warn_once(error)
    return made


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def delete_unused(cached: Iterable[Path], most_bytes: float = math.inf) -> list[Path]:
    """Delete cached files and folders that nothing wrote to for `KEPT_DAYS`, and return them.

    most_bytes : of all files together; beyond it, those that were written to longest ago are deleted too.
    """
    by_age = []
    for path in cached:
        with suppress(OSError):  # another process has deleted it
            by_age.append((path.stat().st_mtime, path.stat().st_size, path))
    total, deleted = 0, []
    for written, size, path in sorted(by_age, reverse=True):
        total += size
        if total > most_bytes or written < time.time() - KEPT_DAYS * 86400:
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                deleted.append(path)
    return deleted


def warn_once(error: OSError) -> None:
    """Warn that the cache cannot be used, and why; only once in the whole process."""
    _warn(str(cache_folder()), error.strerror or str(error))


@functools.cache
def _warn(folder: str, reason: str) -> None:
    log.warning("cannot cache in %s (%s); this only costs time. Name another folder with HEDGEMARK_CACHE", folder, reason)


@functools.cache
def _temporary_folder() -> Path:
    try:
        folder = tempfile.mkdtemp(prefix="hedgemark-")
    except OSError as error:
        raise HedgemarkError(
            f"neither {cache_folder()} nor a temporary folder can be written ({error.strerror or error}); "
            "free some space, or name a folder with HEDGEMARK_CACHE"
        ) from error
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
