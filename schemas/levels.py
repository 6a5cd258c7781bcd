"""Levels: how much a method compresses, as text and as numbers.

    -              no level (dense, checkpoint as found)
    w4a16-g128     weight bits, activation bits, group size of the weights; `w4a16-channel`: one scale per row
    w8a8           weights per row, activations per token
    0.5            fraction removed (sparsity, or structure)
    2:4            2 of every 4 weights kept (n:m)
    0:0.5:0.1      in a request only: the fractions from the first to the second in steps of the third, both ends included

In: text.  Out: a `Level` with a canonical `text`, so that `.50` and `0.5` are one level.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from schemas.errors import UsageError

NO_LEVEL = "-"
_QUANTIZED = re.compile(r"w(\d+)a(\d+)(?:-(?:g(\d+)|channel))?")
_PATTERN = re.compile(r"(\d+):(\d+)")
FULL_BITS = 16
MOST_IN_RANGE = 1000  # a longer range is a mistyped step

Kind = Literal["none", "quantization", "sparsity", "pattern"]


@dataclass(frozen=True)
class Level:
    """One parsed level; fields that its kind does not use keep their defaults."""

    text: str
    kind: Kind
    weight_bits: int = FULL_BITS
    activation_bits: int = FULL_BITS
    group_size: int | None = None
    fraction: float = 0.0
    kept: int = 0
    of: int = 0

    @property
    def strength(self) -> float:
        """Position along a sweep, larger compresses more: fraction removed, or bits removed from weights and activations."""
        if self.kind == "quantization":
            return float(2 * FULL_BITS - self.weight_bits - self.activation_bits)
        return self.fraction


def parse_level(text: str) -> Level:
    """Return the level a text names. Raises UsageError with the accepted forms."""
    if text in ("", NO_LEVEL):
        return Level(NO_LEVEL, "none")
    if match := _QUANTIZED.fullmatch(text):
        return _quantization(text, match)
    if match := _PATTERN.fullmatch(text):
        kept, of = int(match[1]), int(match[2])
        if not 0 < kept < of:
            raise UsageError(f"level {text!r}: n:m keeps n of m weights, so 0 < n < m")
        return Level(f"{kept}:{of}", "pattern", fraction=1 - kept / of, kept=kept, of=of)
    return _fraction(text)


def parse_levels(texts: Iterable[str]) -> list[Level]:
    """Return the levels that texts name, ranges written out, each once, in order. Raises UsageError with the accepted forms."""
    single = (text for given in texts for text in (_range(given) if given.count(":") == 2 else [given]))
    return list(dict.fromkeys(parse_level(text) for text in single))


def _range(text: str) -> list[str]:
    try:
        start, stop, step = (Fraction(part) for part in text.split(":"))
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"level {text!r} is no range; a range is start:stop:step, such as 0:0.5:0.1") from None
    if not (0 <= start <= stop < 1 and step > 0 and (stop - start) / step < MOST_IN_RANGE):
        raise UsageError(f"level {text!r}: a range start:stop:step has 0 <= start <= stop < 1 and a step above 0, such as 0:0.5:0.1")
    return [str(start + number * step) for number in range(int((stop - start) / step) + 1)]


def _quantization(text: str, match: re.Match[str]) -> Level:
    weight_bits, activation_bits = int(match[1]), int(match[2])
    if not 2 <= weight_bits <= FULL_BITS or not 2 <= activation_bits <= FULL_BITS:
        raise UsageError(f"level {text!r}: bits run from 2 to {FULL_BITS}")
    group_size = int(match[3]) if match[3] else None
    if group_size == 0:
        raise UsageError(f"level {text!r}: a group holds at least one weight")
    return Level(text.removesuffix("-channel"), "quantization", weight_bits, activation_bits, group_size)


def _fraction(text: str) -> Level:
    try:
        fraction = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"level {text!r} is not one; examples: w4a16-g128, w8a8, 0.5, 2:4") from None
    if not 0 <= fraction < 1:
        raise UsageError(f"level {text!r}: a fraction removed lies in [0, 1)")
    short = f"{float(fraction):g}"  # what the run key says is what is removed: 1/3 means 0.333333
    if float(short) == 1:
        raise UsageError(f"level {text!r}: a fraction removed lies in [0, 1), to six digits")
    return Level(short, "sparsity", fraction=float(short))
