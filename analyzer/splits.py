"""Splits: which items calibrate and which test. `all` is the exact law over every split; the others are drawn.

Split s of `--split N` is the split `--split seed:s`; it depends on the number of items and nothing else, so every run over the same
items gets the same splits.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from analyzer.arrays import BoolArray
from schemas.errors import UsageError

BYTE = 256
MAX_SPLITS = 100_000


@dataclass(frozen=True)
class Split:
    """What `--split` asks for: `seeds` is None for all splits, else one seed per drawn split."""

    text: str
    seeds: range | None = None


ALL = Split("all")


def parse_split(text: str) -> Split:
    """Return the split that a text names: `all`, a number of splits, or `seed:K` for one split.

    Raises UsageError with the accepted forms.
    """
    if text == "all":
        return ALL
    seed = text.removeprefix("seed:")
    if not seed.isdecimal():
        raise UsageError(f"split {text!r} is not one; expected all, a number of splits, or seed:K")
    number = int(seed)
    if seed != text:
        return Split(text, range(number, number + 1))
    if not 1 <= number <= MAX_SPLITS:
        raise UsageError(f"split {text!r}: the number of splits runs from 1 to {MAX_SPLITS}")
    return Split(text, range(number))


def calibration_size(n_items: int, fraction: Fraction) -> int:
    """Return the number of calibration items, floor(fraction * N). Raises UsageError where either side would be empty."""
    n = int(n_items * fraction)
    if not 1 <= n < n_items:
        raise UsageError(f"calibration fraction {float(fraction):g} of {n_items} items calibrates {n}, tests {n_items - n}; both need one")
    return n


def draw_splits(n_items: int, n_calibration: int, seeds: Iterable[int]) -> BoolArray:
    """Return (split, item) bool, true where an item calibrates; every row has n_calibration of them, uniform over all choices."""
    return np.stack([_draw(np.random.default_rng(seed), n_items, n_calibration) for seed in seeds])


def _draw(rng: np.random.Generator, n_items: int, n: int) -> BoolArray:
    """Independent coin flips, then as many random items turned as the count is off: uniform by symmetry, without a shuffle."""
    chosen = rng.integers(0, BYTE, size=n_items, dtype=np.uint8) < BYTE * n // n_items
    excess = int(chosen.sum()) - n
    pool = np.flatnonzero(chosen if excess > 0 else ~chosen)
    chosen[rng.choice(pool, size=abs(excess), replace=False, shuffle=False)] = excess < 0
    return chosen
