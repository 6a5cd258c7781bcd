"""TOML files that a user writes (sweeps, prompts, policies, prices): read as tables, checked as pydantic models.

In: a path.  Out: a plain table, or a model of it. Whatever is wrong is a UsageError in a sentence, with every problem named at once.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from schemas.errors import UsageError
from schemas.json_text import read_text

M = TypeVar("M", bound=BaseModel)


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Return the table of a TOML file; `what` names its kind in messages. Raises UsageError where it cannot be read."""
    try:
        return tomllib.loads(read_text(path))
    except RecursionError as error:
        raise UsageError(f"cannot read {what} {path}: it is nested too deeply") from error
    except ValueError as error:
        raise UsageError(f"cannot read {what} {path}: {error}") from error


def as_model(model: type[M], table: Mapping[str, Any], where: str = "") -> M:
    """Return a table as a pydantic model. Raises UsageError naming every problem, after `where`."""
    try:
        return model.model_validate(dict(table))
    except ValidationError as error:
        known = [field.alias or name for name, field in model.model_fields.items()]
        problems = "; ".join(_problem(each, known) for each in error.errors())
        raise UsageError(f"{where}: {problems}" if where else problems) from error


def _problem(error: Any, known: list[str]) -> str:
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r}; known: {', '.join(known)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{key!r}: {message[0].lower()}{message[1:]}" if key else message
