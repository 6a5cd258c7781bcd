"""Read TOML files that users write (sweeps, prompts, policies, prices) and check them as pydantic models.

In: a path.  Out: a plain table, or a model. Errors are a UsageError with one sentence that names all problems.
"""

import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from schemas.errors import UsageError
from schemas.json_text import read_text
from schemas.known_names import known
from schemas.numbers import is_number

ModelType = TypeVar("ModelType", bound=BaseModel)


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Return the table of a TOML file; `what` names the kind of file in messages. Raises UsageError if it cannot be read."""
    try:
        return tomllib.loads(read_text(path))
    except RecursionError as error:
        raise UsageError(f"cannot read {what} {path}: it is nested too deeply") from error
    except ValueError as error:
        raise UsageError(f"cannot read {what} {path}: {error}{_decimal_comma(path, error)}") from error


def _decimal_comma(path: Path, error: ValueError) -> str:
    """Return the end of a message about a line such as `accuracy_loss = 0,02`; "" for any other."""
    if not (place := re.search(r"at line (\d+)", str(error))):
        return ""
    line = read_text(path).splitlines()[int(place[1]) - 1]
    return "; write a decimal point, not a comma" if re.match(r"[^=#]+=\s*[+-]?\d+,\d", line) else ""


def as_model(model: type[ModelType], table: Mapping[str, Any], where: str = "") -> ModelType:
    """Return a table as a pydantic model. Raises UsageError that names every problem, after `where`."""
    try:
        return model.model_validate(dict(table))
    except ValidationError as error:
        problems = "; ".join(_problem(model, each) for each in error.errors())
        raise UsageError(f"{where}: {problems}" if where else problems) from error


def finite_number(value: Any) -> float:
    """Return a number. Raises ValueError for a text, also one with a number in it, for true, false, infinity, NaN and anything else."""
    if isinstance(value, str) and is_number(value) and "/" not in value:
        raise ValueError(f"{value!r:.60} is text; write the number without quotes")
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError, OverflowError):  # the last for a whole number of 400 digits
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{value!r:.60} is not a finite number")
    return number


def number_from_zero(value: Any) -> float:
    """Return a number of 0 or more. Raises ValueError for anything else, text and infinity included."""
    if finite_number(value) < 0:
        raise ValueError(f"{value!r} is not a number of 0 or more")
    return float(value)


def _problem(model: type[BaseModel], error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"] if part != "[key]")
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r}; {known(str(error['loc'][-1]), _known(model, error['loc']))}"
    if error["type"] in ("dict_type", "mapping_type", "model_type"):
        return f"{key!r} is {error['input']!r}; it should be a table, headed [{key}]"
    if message.startswith("Input should"):
        return f"{key!r} is {error['input']!r}; it {message.removeprefix('Input ')}"
    return f"{key!r}: {message[0].lower()}{message[1:]}" if key else message


def _known(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """Return the known keys of the table that contains the key at `loc`."""
    for part in loc[:-1]:
        annotation = model.model_fields[str(part)].annotation
        inner = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not inner:
            break
        model = inner[0]
    return [field.alias or name for name, field in model.model_fields.items()]
