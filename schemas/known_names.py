"""The end of a message about a name that does not exist: the most similar one, and those that do."""

from collections.abc import Iterable
from difflib import get_close_matches


def known(name: str, names: Iterable[str], most: int | None = None) -> str:
    """Return the names that there are, and which of them was probably meant: `did you mean facts? known: facts, urn`.

    most : how many are listed; the others are counted.
    """
    listed = list(names)
    close = get_close_matches(name, listed, n=1)
    more = f" and {len(listed) - most} more" if most is not None and len(listed) > most else ""
    return f"{f'did you mean {close[0]}? ' if close else ''}known: {', '.join(listed[:most]) or 'none'}{more}"
