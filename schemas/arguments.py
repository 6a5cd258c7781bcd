"""The values of arguments that callers from Python give: each is read into the one form that a function works with.

A value of another kind is a UsageError that names the argument, shows what was given, and says what is expected.
"""

import math
import os
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from schemas.errors import UsageError
from schemas.numbers import exact_number

SHOWN = 80  # characters of a wrong value that a message quotes

Reader = Callable[[Any], Any]  # raises TypeError or ValueError for a value of another kind


class Kind(NamedTuple):
    """What an argument may be: how a value is read, and what a message says is expected."""

    read: Reader
    expected: str


def read_argument(name: str, value: Any, kind: Kind) -> Any:
    """Return the value of an argument in the form that functions work with. Raises UsageError for a value of another kind."""
    try:
        return kind.read(value)
    except (TypeError, ValueError):
        raise UsageError(f"{name} is {_shown(value)}; expected {kind.expected}") from None


def text(value: Any) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise TypeError
    return str(value)


def flag(value: Any) -> bool:
    """Return True or False, and nothing that is only taken as such."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError
    return bool(value)


def exact(value: Any) -> str | Fraction:
    """Return a number as it was written, or as a fraction: a float stands for its shortest decimal, so that 0.1 is 1/10."""
    if isinstance(value, np.ndarray) and not value.ndim:
        value = value[()]
    if isinstance(value, bool | np.bool_) or not isinstance(value, str | Real | Decimal | np.number):
        raise TypeError
    return value if isinstance(value, str | Fraction) else str(value)


def number(value: Any) -> float:
    """Return a number, which may be infinite."""
    read = exact(value)
    found = float(exact_number(value) if isinstance(value, str) else read)
    if math.isnan(found):
        raise ValueError
    return found


def whole_number(value: Any) -> int:
    """Return a whole number."""
    found = number(value)
    if not found.is_integer():
        raise ValueError
    return int(found)


def file_path(value: Any) -> Path:
    """Return the path of a file or folder."""
    return Path(text(os.fspath(value)) or refuse())


def address(value: Any) -> str:
    """Return the address of a store, which may be a path."""
    return str(file_path(value)) if isinstance(value, os.PathLike) else text(value)


def instance_of(kind: type) -> Reader:
    """Return what reads an object of this class, and nothing else."""

    def read(value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError
        return value

    return read


def refuse() -> NoReturn:
    """Say that a value is not of the kind that is read."""
    raise ValueError


def _shown(value: Any) -> str:
    if value is None or isinstance(value, str | bytes | bool | int | float | complex | Fraction | Decimal | Path):
        return f"{value!r}"[:SHOWN]
    if isinstance(value, list | tuple | set | frozenset | dict) and len(repr(value)) <= SHOWN:
        return repr(value)
    kind = value if isinstance(value, type) else type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"
    return f"the class {name}" if isinstance(value, type) else f"of type {name}"


A_TEXT = Kind(text, "a text")
A_FLAG = Kind(flag, "True or False")
A_NUMBER = Kind(number, "a number")
A_FILE = Kind(file_path, "the path of a file")
AN_ADDRESS = Kind(address, "the address of a store as text or a path")
A_SNAPSHOT = Kind(text, "a tag or the id of a snapshot, as text")
