"""Parse numbers from untrusted text exactly, and only if they are short enough to compute with.

In: text.  Out: a `Fraction`. `Fraction("1e-99999999")` would compute a number of a hundred million digits, Python refuses `int` of five
thousand digits with a traceback, and both accept digits of any script; all of these are a ValueError here.
"""

import re
from fractions import Fraction

from schemas.errors import UsageError

_NUMBER = re.compile(r"[+-]?(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})(?:e[+-]?\d{1,2})?|[+-]?\d{1,9}/\d{1,9}", re.IGNORECASE | re.ASCII)
SHOWN = 40  # characters of a wrong text that a message quotes


def check_tolerance(value: float, name: str) -> None:
    """Raise UsageError for a tolerance that is not a share in [0, 1]; NaN is none."""
    if not 0 <= value <= 1:
        raise UsageError(f"{name} is {value!r}; expected a share from 0 to 1, such as 0.01")


def is_number(text: str) -> bool:
    """Return whether a text is a decimal number or a ratio of two whole numbers, of at most 20 digits before and after the point."""
    return bool(_NUMBER.fullmatch(text.strip()))


def exact_number(text: str) -> Fraction:
    """Return the exact value of a number such as `0.1`, `1e-3` or `1/10`. Raises ValueError for anything else."""
    if not is_number(text):
        raise ValueError(f"{text[:SHOWN]!r} is not a number such as 0.1, 1e-3 or 1/10")
    try:
        return Fraction(text.strip())
    except ZeroDivisionError:
        raise ValueError(f"{text[:SHOWN]!r} divides by zero") from None
