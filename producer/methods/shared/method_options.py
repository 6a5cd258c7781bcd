"""Settings of a method that a request may choose, such as `--set smoothing=0.8`.

In: texts NAME=VALUE.  Out: values, which a run records among its method's settings and which are part of its key.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from schemas.errors import UsageError
from schemas.levels import Level


class Option(NamedTuple):
    """One setting that a request may choose.

    meaning : what it is, and its default, as `produce --list settings` says it.
    values  : what it may be, as that list and errors say it.
    read    : text -> value, JSON-able; raises ValueError for a text that is none of the values.
    default : (config, level) -> the value where none is given.
    fits    : (config, level, value) -> "" if the model can be compressed with it, else the reason why not.
    """

    meaning: str
    values: str
    read: Callable[[str], Any]
    default: Callable[[Any, Level], Any]
    fits: Callable[[Any, Level, Any], str] = lambda config, level, value: ""


def parse_chosen(texts: Sequence[str]) -> dict[str, str]:
    """Return the values by name of texts NAME=VALUE. Raises UsageError for a text without either, or a name that is given twice."""
    chosen: dict[str, str] = {}
    for text in texts:
        name, _, value = (part.strip() for part in text.partition("="))
        if not (name and value):
            raise UsageError(f"--set {text!r} is not NAME=VALUE, such as smoothing=0.8")
        if name in chosen:
            raise UsageError(f"--set gives {name!r} twice; one request makes one model of each level")
        chosen[name] = value
    return chosen


def read_chosen(method: str, options: Mapping[str, Option], chosen: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of those chosen settings that a method has. Raises UsageError for a value that is none."""
    values = {}
    for name in options.keys() & chosen.keys():
        try:
            values[name] = options[name].read(chosen[name])
        except ValueError as error:
            raise UsageError(
                f"--set {name}={chosen[name]}: method {method!r} takes {options[name].values}" + (f" ({error})" if str(error) else "")
            ) from None
    return values


def words(**values: Any) -> Callable[[str], Any]:
    """Return what reads one of some words as its value."""

    def read(text: str) -> Any:
        if text not in values:
            raise ValueError
        return values[text]

    return read


def number(low: float, high: float, kind: Callable[[str], float] = float) -> Callable[[str], float]:
    """Return what reads a number from low to high, both included. kind : float, or int for whole numbers."""

    def read(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return read
