"""From option values to what is asked; an option that would have no effect beside the others is refused.

In: values by parameter name, from the command line, from a block of a sweep file, or both.  Out: `Asked`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from producer.engine.settings import Settings
from producer.request.request import Request
from schemas.errors import UsageError

TRANSFORMERS, VLLM = "--backend transformers", "--backend vllm"
NEEDS = {
    "executor": "--plan",
    "workers": "--plan",
    "tensor_parallel": VLLM,
    **dict.fromkeys(("device", "batch_tokens", "device_memory", "host_memory", "self_check"), TRANSFORMERS),
}
BESIDE_EMIT = ("executor", "workers", "dry_run")
SIZES = ("device_memory", "host_memory")


class Asked(NamedTuple):
    """What is asked, and how to run it."""

    request: Request
    settings: Settings


def ask(given: Mapping[str, Any]) -> Asked:
    """Return the request and the settings that these values mean. Raises UsageError for values that cannot go together."""
    _check_needs(given)
    _check_sweep(given)
    sizes = {name: _size(name, given[name]) for name in SIZES if name in given}
    return Asked(Request(**_fields(Request, given)), Settings(**{**_fields(Settings, given), **sizes}))


def option(name: str) -> str:
    """Return the option of a parameter's name."""
    return f"--{name.replace('_', '-')}"


def _check_needs(given: Mapping[str, Any]) -> None:
    values = {"backend": Request.backend, **given}
    for name, need in NEEDS.items():
        needed, _, value = need.removeprefix("--").partition(" ")
        if name in values and (needed not in values or (value and values[needed] != value)):
            raise UsageError(f"{option(name)} {values[name]} has no effect without {need}")


def _check_sweep(given: Mapping[str, Any]) -> None:
    for name in BESIDE_EMIT:
        if "emit" in given and name in given:
            raise UsageError(f"{option(name)} has no effect beside --emit, which runs nothing")
    number = str(given.get("device", "")).partition("cuda:")[2]
    if number and ("plan" in given or "emit" in given):
        raise UsageError(f"--device cuda:{number} is one device, and a sweep gives each cell its own; set CUDA_VISIBLE_DEVICES={number}")


def _size(name: str, text: str) -> int:
    from producer.engine.memory_plan import parse_size

    size = parse_size(text)
    if not size:
        raise UsageError(f"{option(name)} {text} leaves no memory at all; leave the option out for what is free")
    return size


def _fields(kind: type[Request] | type[Settings], given: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: given[field.name] for field in dataclasses.fields(kind) if field.name in given}
