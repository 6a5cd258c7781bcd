"""Read the branch and tag files of a local store without Icechunk.

In: the folder of a branch or tag.  Out: the id of the snapshot that it names.
"""

import re
from pathlib import Path

MAX_BYTES = 4096
REFERENCE = re.compile(r'\s*\{\s*"snapshot"\s*:\s*"([0-9A-HJKMNP-TV-Z]{20})"\s*\}\s*')


def read_reference(folder: Path) -> str | None:
    """Return the id of the snapshot that a branch or tag names, None if its file is absent or damaged."""
    try:
        with (folder / "ref.json").open("rb") as file:
            content = file.read(MAX_BYTES + 1).decode("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    match = REFERENCE.fullmatch(content)
    return match[1] if match else None
