"""The user's cache folder: what is there may be lost at any time, and costs only time when it is."""

import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


def cache_folder(kind: str) -> Path:
    """Return the folder for one kind of cached file; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hedgemark" / kind


def remember(fact: Path) -> None:
    """Make the empty file that stands for a fact; where that fails, it will be found out again."""
    try:
        fact.parent.mkdir(parents=True, exist_ok=True)
        fact.touch()
    except OSError as error:
        log.debug("%s not remembered: %s", fact, error)
