"""Read single values of a predictor file; what is wrong with one is phrased to follow the file's name in an error message."""

import math
from fractions import Fraction
from typing import Any

from schemas.numbers import exact_number


class Problem(ValueError):
    """What is wrong with a value."""


def read_number(value: Any, name: str) -> float:
    """Return a finite number that is stored as text."""
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise Problem(f'{name} is {value!r}; expected a finite number as text, such as "0.75"')
    return number


def read_positive(value: Any, name: str) -> float:
    """Return a number above 0 that is stored as text."""
    number = read_number(value, name)
    if not number > 0:
        raise Problem(f"{name} is {value!r}; expected a number above 0")
    return number


def read_share(value: Any, name: str) -> Fraction:
    """Return an exact share in (0, 1) that is stored as text."""
    try:
        share = exact_number(value) if isinstance(value, str) else Fraction(0)
    except ValueError:
        share = Fraction(0)
    if not 0 < share < 1:
        raise Problem(f'{name} is {value!r}; expected a value in (0, 1) as text, such as "1/10"')
    return share


def read_count(value: Any, name: str, least: int) -> int:
    """Return a whole number that is not below the least one allowed."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise Problem(f"{name} is {value!r}; expected a whole number of {least} or more")
    return value


def read_text_value(value: Any, name: str) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise Problem(f"{name} is {value!r}; expected text")
    return value


def read_one_of(value: Any, name: str, choices: tuple[str, ...]) -> str:
    """Return a text that is one of the choices."""
    if value not in choices:
        raise Problem(f"{name} is {value!r}; expected {', '.join(choices)}")
    return str(value)


def read_list(value: Any, name: str) -> list[Any]:
    """Return a list."""
    if not isinstance(value, list):
        raise Problem(f"{name} is {value!r:.80}; expected a list")
    return value


def read_table(value: Any, name: str) -> dict[str, Any]:
    """Return an object."""
    if not isinstance(value, dict):
        raise Problem(f"{name} is {value!r:.80}; expected an object")
    return value
