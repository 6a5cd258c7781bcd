"""Alphas: allowed miscoverage, as exact rationals read from text.

A float would move the rank k for some alphas: ceil((n + 1)(1 - alpha)) is wrong for about 20 % of a 0.01 grid when n + 1 is a
multiple of 100.
"""

from collections.abc import Iterable
from fractions import Fraction

from schemas.errors import UsageError
from schemas.numbers import exact_number

MAX_ALPHAS = 10_000  # a step like 1e-9 is a slip of the hand, not a question


def parse_alphas(texts: Iterable[str]) -> tuple[Fraction, ...]:
    """Return the alphas that texts name, in order, each once: `0.1`, `1/10`, or a range `0.01:0.99:0.01` with both ends.

    Raises UsageError quoting the text that is no alpha in (0, 1).
    """
    alphas: dict[Fraction, None] = {}
    for text in texts:
        alphas.update(dict.fromkeys(_range(text) if ":" in text else [_alpha(text)]))
    return tuple(alphas)


def _alpha(text: str) -> Fraction:
    alpha = _fraction(text, text)
    if not 0 < alpha < 1:
        raise UsageError(f"alpha {text!r} is outside (0, 1); it is the allowed share of misses, such as 0.1")
    return alpha


def _range(text: str) -> list[Fraction]:
    parts = text.split(":")
    if len(parts) != 3:
        raise UsageError(f"alpha {text!r} is not a range; expected first:last:step, such as 0.01:0.99:0.01")
    first, last, step = _alpha(parts[0]), _alpha(parts[1]), _fraction(parts[2], text)
    if step <= 0 or last < first:
        raise UsageError(f"alpha {text!r} is an empty range; expected first <= last and a step above 0")
    count = (last - first) // step + 1
    if count > MAX_ALPHAS:
        raise UsageError(f"alpha {text!r} names {count} alphas; at most {MAX_ALPHAS} are taken")
    return [first + step * index for index in range(count)]


def _fraction(text: str, whole: str) -> Fraction:
    try:
        return exact_number(text)
    except ValueError:
        expected = "a value in (0, 1) such as 0.1 or 1/10, or first:last:step"
        raise UsageError(f"alpha {whole[:80]!r} is not a number; expected {expected}") from None
