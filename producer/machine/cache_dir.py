"""Where things made once are kept: `$HEDGEMARK_CACHE`, else `hedgemark` in the user's cache folder."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the folder, made if it is not there."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("HEDGEMARK_CACHE") or Path(base) / "hedgemark")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
