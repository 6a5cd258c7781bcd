"""Sweep files: many requests in one TOML file.

    limit = 1000                      # top level: what every block shares
    task = ["mmlu", "hellaswag"]

    [[sweep]]                         # each block: every combination of its lists
    model = ["llama3.1-8b", "qwen3-8b"]
    method = ["dense", "wanda"]
    level = ["0.3", "0.5"]

    [[sweep]]
    model = "llama3.1-70b"
    device-memory = "20G"

Keys are the command's option names, and values are checked by the options themselves. In: a path.  Out: `Asked`, one per block.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from producer.cli.main import main
from producer.engine.settings import Settings
from producer.request.parse import Asked, ask
from producer.request.request import Request
from schemas.errors import UsageError

NAMES = {field.name for kind in (Request, Settings) for field in fields(kind)}
OPTIONS = {parameter.opts[0].removeprefix("--"): parameter for parameter in main.params if parameter.name in NAMES}
BLOCK = "sweep"


def read_plan(path: Path, given: Mapping[str, Any]) -> list[Asked]:
    """Return what a sweep file asks; what the command line gave comes before what the file says.

    Raises UsageError for broken TOML, an unknown key, a value that the option does not take, a block without a model.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read sweep file {path}: {error}") from error
    blocks = table.pop(BLOCK, [{}])
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise UsageError(f"{path}: {BLOCK!r} must be blocks, each headed [[{BLOCK}]]")
    return [_ask({**table, **block}, given, f"{path}, block {number}") for number, block in enumerate(blocks, 1)]


def _ask(table: Mapping[str, Any], given: Mapping[str, Any], where: str) -> Asked:
    try:
        values = {**dict(_value(key.replace("_", "-"), value) for key, value in table.items()), **given}
        if not values.get("models"):
            raise UsageError("no model")
        return ask(values)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _value(key: str, value: Any) -> tuple[str, Any]:
    """Return the parameter's name and its value as the command line would have it."""
    option = OPTIONS.get(key)
    if not isinstance(option, click.Option) or not option.name:
        raise UsageError(f"unknown key {key!r}; known: {', '.join(OPTIONS)}")
    values = value if option.multiple and isinstance(value, list) else [value]
    kind, described = _kind(option)
    if not all(type(each) is kind for each in values):
        raise UsageError(f"{key!r} must be {described}, not {value!r}")
    try:
        converted = tuple(option.type.convert(each, option, None) for each in values)
    except click.BadParameter as error:
        raise UsageError(f"{key!r}: {error.message}") from error
    return option.name, converted if option.multiple else converted[0]


def _kind(option: click.Option) -> tuple[type, str]:
    if option.is_flag:
        return bool, "true or false"
    if isinstance(option.type, click.IntRange):
        return int, "a whole number"
    return str, "a string or a list of strings" if option.multiple else "a string"
