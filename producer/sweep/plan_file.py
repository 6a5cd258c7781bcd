"""Sweep files: many requests in one TOML file.

    limit = 1000                      # top level: what every block shares
    task = ["mmlu", "hellaswag"]

    [[sweep]]                         # each block: every combination of its lists
    model = ["llama3.1-8b", "qwen3-8b"]
    method = ["dense", "wanda"]
    level = ["0.3", "0.5"]

Keys are the command's option names. In: a path.  Out: `Request`s, one per block.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from producer.request import Request
from schemas.errors import UsageError

LISTS = {"model": "models", "method": "methods", "level": "levels", "task": "tasks", "prompt": "prompts"}
PATHS = ("data", "prompt_file")
BLOCK = "sweep"


def read_plan(path: Path, changes: Mapping[str, Any]) -> list[Request]:
    """Return the requests of a sweep file; `changes` (fields given on the command line) come before what the file says.

    Raises UsageError for broken TOML, an unknown key, a value of the wrong kind, a block without a model.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read sweep file {path}: {error}") from error
    blocks = table.pop(BLOCK, [{}])
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise UsageError(f"{path}: {BLOCK!r} must be blocks, each headed [[{BLOCK}]]")
    return [Request(**(_fields({**table, **block}, f"{path}, block {number}") | dict(changes))) for number, block in enumerate(blocks, 1)]


def _fields(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    scalars = {f.name: f.type for f in fields(Request) if f.name not in LISTS.values()}
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name in LISTS:
            values[LISTS[name]] = _texts(key, value, where)
        elif name in scalars:
            values[name] = Path(_checked(key, value, str, where)) if name in PATHS else _checked(key, value, _kind(scalars[name]), where)
        else:
            raise UsageError(f"{where}: unknown key {key!r}; known: {', '.join([*LISTS, *scalars])}")
    if not values.get("models"):
        raise UsageError(f"{where}: no model")
    return values


def _texts(key: str, value: Any, where: str) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise UsageError(f"{where}: {key!r} must be a string or a list of strings, not {value!r}")
    return tuple(listed)


def _kind(annotation: Any) -> type:
    return {"int": int, "bool": bool}.get(getattr(annotation, "__name__", str(annotation)), str)


def _checked(key: str, value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UsageError(f"{where}: {key!r} must be a {kind.__name__}, not {value!r}")
    return value
