"""Progress bars on stderr."""

from typing import Any

from store.shown import printable


def progress_bar(total: int, label: str, unit: str, *, shown: bool = True) -> Any:
    """Return a tqdm progress bar on stderr, hidden if stderr is not a terminal."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    return tqdm(total=total, desc=printable(label), unit=unit, disable=None if shown else True, leave=False)
