"""The user's cache folder: what is there may be lost at any time, and costs only time when it is."""

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """Return the folder for one kind of cached file; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hedgemark" / kind
