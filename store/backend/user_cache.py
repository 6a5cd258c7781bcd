"""The user's cache folder: what is there may be lost at any time, and costs only time when it is.

It is `$HEDGEMARK_CACHE`, else `hedgemark` in the folder that the platform has for caches (`$XDG_CACHE_HOME` or `~/.cache` on Linux).
All three commands keep what they cache below it. Where nothing can be written there, one warning says so and the work goes on without.
"""

import atexit
import functools
import logging
import os
import shutil
import tempfile
from pathlib import Path

from platformdirs import user_cache_dir

from schemas.errors import HedgemarkError

log = logging.getLogger(__name__)


def cache_folder(kind: str = "") -> Path:
    """Return the folder for one kind of cached file, or the folder of all kinds; it need not exist."""
    folder = os.environ.get("HEDGEMARK_CACHE") or user_cache_dir("hedgemark", appauthor=False)
    if folder.startswith("~"):  # a user without a home: left as it is, this would be a folder named ~ in the working directory
        folder = os.path.join(os.devnull, "hedgemark")  # where nothing can be written
    return Path(folder) / kind


def existing_cache_folder() -> Path:
    """Return the folder of all kinds, made if need be; a temporary one for this process where it cannot be written, with a warning.

    Raises HedgemarkError where no temporary folder can be made either.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        warn_once(error)
        return _temporary_folder()
    return folder


def remember(fact: Path) -> None:
    """Make the empty file that stands for a fact; where that fails, it will be found out again."""
    try:
        fact.parent.mkdir(parents=True, exist_ok=True)
        fact.touch()
    except OSError as error:
        warn_once(error)


def is_remembered(fact: Path) -> bool:
    """Return whether there is the file that stands for a fact; a folder that may not be read holds none."""
    try:
        return fact.is_file()
    except OSError:
        return False


def warn_once(error: OSError) -> None:
    """Say once for the whole process that the cache cannot be used, and why."""
    _warn(str(cache_folder()), error.strerror or str(error))


@functools.cache
def _warn(folder: str, reason: str) -> None:
    log.warning("nothing can be cached in %s (%s), which costs time and nothing else; HEDGEMARK_CACHE names another folder", folder, reason)


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
