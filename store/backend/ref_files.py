"""Branch and tag files of a local store, read without Icechunk.

In: the folder of a reference.  Out: the snapshot id it names.
"""

import re
from pathlib import Path

MAX_BYTES = 4096
REFERENCE = re.compile(r'\s*\{\s*"snapshot"\s*:\s*"([0-9A-HJKMNP-TV-Z]{20})"\s*\}\s*')


def read_reference(folder: Path) -> str | None:
    """Return the snapshot id that a reference names, None where it is absent or damaged."""
    try:
        with (folder / "ref.json").open("rb") as file:
            content = file.read(MAX_BYTES + 1).decode("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    match = REFERENCE.fullmatch(content)
    return match[1] if match else None
