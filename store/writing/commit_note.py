"""Who made a commit, and why: recorded with the commit, shown by `store log`, and covered by a signature.

In: a note (`--message`) and an author (the environment variable HEDGEMARK_AUTHOR).  Out: a commit's metadata.
"""

import os
from collections.abc import Mapping
from typing import Any

from schemas.errors import UsageError
from schemas.private import shareable_message

AUTHOR = "HEDGEMARK_AUTHOR"
MOST = {"the note of --message": 500, AUTHOR: 100}  # characters


def commit_metadata(numbers: Mapping[str, int], note: str = "", author: str | None = None) -> dict[str, Any]:
    """Return the metadata of a commit: numbers such as runs written, and author and note where there are any.

    note   : one line; paths of this machine, the user's name and tokens are taken out of it.
    author : as it is to be shown; None takes it from HEDGEMARK_AUTHOR.
    Raises UsageError for a note of more than 500 characters or an author of more than 100.
    """
    author = os.environ.get(AUTHOR, "") if author is None else author
    texts = {"the note of --message": shareable_message(_line(note)), AUTHOR: _line(author)}
    for what, text in texts.items():
        if len(text) > MOST[what]:
            raise UsageError(f"{what} has {len(text)} characters; at most {MOST[what]} are stored with a commit")
    named = {"author": texts[AUTHOR], "note": texts["the note of --message"]}
    return {**numbers, **{name: text for name, text in named.items() if text}}


def _line(text: str) -> str:
    return " ".join(text.split())
