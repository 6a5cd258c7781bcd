"""What a request leaves open, or combines: devices, dtypes, tasks, and which levels go with which method."""

from collections.abc import Sequence
from typing import Any

from producer.methods import METHODS
from producer.models.find import REFERENCE
from producer.request.request import Request
from producer.tasks import EMBEDDED
from producer.tasks.published import PUBLISHED
from schemas.errors import UsageError
from schemas.levels import Level, parse_level, parse_levels

DTYPES = ("auto", "float32", "bfloat16", "float16")


def check_names(kind: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raise UsageError naming the first unknown name and all known ones."""
    for name in names:
        if name not in known:
            raise UsageError(f"unknown {kind} {name!r}; known: {', '.join(known)}")


def choose_tasks(request: Request, models: Sequence[str]) -> list[str]:
    """Return the tasks asked of these models: the embedded ones for reference models, the published ones for others."""
    if request.tasks:
        return list(dict.fromkeys(request.tasks))
    embedded = [*EMBEDDED] if any(name in REFERENCE for name in models) else []
    published = [*PUBLISHED] if any(name not in REFERENCE for name in models) else []
    return embedded + published


def choose_levels(methods: Sequence[str], levels: Sequence[str]) -> dict[str, list[Level]]:
    """Return each method's levels: its default, or those of the given ones that it takes.

    Raises UsageError for an unknown method, a level that no method takes, a method that takes none of the levels.
    """
    check_names("method", methods, [*METHODS])
    parsed = parse_levels(levels)
    if not parsed:
        return {name: [parse_level(METHODS[name].default_level)] for name in methods}
    chosen = {name: [level for level in parsed if not METHODS[name].accepts(level)] for name in methods}
    leveled = [name for name in methods if name != "dense"] or list(methods)
    for level in parsed:
        if not any(level in chosen[name] for name in methods):
            METHODS[leveled[0]].check_level(level)
    for name in leveled:
        if not chosen[name]:
            METHODS[name].check_level(parsed[0])
    return {name: chosen[name] or [parse_level(METHODS[name].default_level)] for name in methods}


def choose_device(device: str) -> str:
    """Return the device to run on. Raises UsageError for one that is not there."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        probe = torch.ones(1, device=device)
        probe.item()  # "meta" is a device, and holds no numbers
        return str(probe.device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device {device!r} cannot be used ({str(error).splitlines()[0]})") from error


def choose_dtype(dtype: str, device: str, config: Any) -> str:
    """Return the dtype to run in: "auto" is float32 on a CPU and the checkpoint's own elsewhere."""
    check_names("dtype", [dtype], DTYPES)
    if dtype != "auto":
        return dtype
    own = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    return "float32" if device == "cpu" else own
