"""What is asked of every run: alphas, scorers, split, protocol."""

from dataclasses import dataclass
from fractions import Fraction

from analyzer.ranks import Empty
from analyzer.splits import ALL, Split

TENTH, HALF = Fraction(1, 10), Fraction(1, 2)


@dataclass(frozen=True)
class Question:
    """One question. The defaults are those of the `exact` protocol."""

    alphas: tuple[Fraction, ...] = (TENTH,)
    scorers: tuple[str, ...] = ("lac", "aps")
    split: Split = ALL
    calibration_fraction: Fraction = HALF
    empty: Empty = "keep"
    protocol: str = "exact"
