"""Check that weights in several files are one model: each tensor once, and where the index says it is.

In: the weight files of a folder.  Out: nothing, or an error. Libraries read all files and keep the last tensor of a name, so a file left
over from another save changes the model without a word.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from producer.models.packed import read_tensors
from schemas.errors import HedgemarkError


def check_shards(paths: list[Path]) -> None:
    """Raise HedgemarkError for a tensor that two files hold with different values, or that is not in the file that the index names."""
    held = {path.name: frozenset(_names(path)) for path in paths}
    for name, file in _indexed(paths):
        if name not in held[file]:
            raise HedgemarkError(f"the index in {paths[0].parent} says that {file} holds tensor {name}, which it does not; get both again")
    seen: dict[str, Path] = {}
    for path in paths:
        for name in sorted(held[path.name]):
            first = seen.setdefault(name, path)
            if first != path and not _equal(_tensor(first, name), _tensor(path, name)):
                raise HedgemarkError(f"{first.name} and {path.name} in {path.parent} hold different tensors {name}; one is of another save")


def _names(path: Path) -> Iterator[str]:
    from safetensors import safe_open

    if path.suffix != ".safetensors":
        yield from read_tensors([path])
        return
    with safe_open(path, framework="pt") as tensors:
        yield from tensors.keys()


def _tensor(path: Path, name: str) -> Any:
    from safetensors import safe_open

    if path.suffix != ".safetensors":
        return read_tensors([path])[name]
    with safe_open(path, framework="pt") as tensors:
        return tensors.get_tensor(name)


def _equal(first: Any, second: Any) -> bool:
    import torch

    raw, other = (tensor.contiguous().flatten().view(torch.uint8) for tensor in (first, second))
    return first.shape == second.shape and first.dtype == second.dtype and torch.equal(raw, other)


def _indexed(paths: list[Path]) -> list[tuple[str, str]]:
    """Return the tensors and files of the index that names these files; [] if none does. Its form was checked when its files were found."""
    for index in paths[0].parent.glob("*.index.json"):
        places = list(json.loads(index.read_text(encoding="utf-8"))["weight_map"].items())
        if {file for _, file in places} == {path.name for path in paths}:
            return places
    return []
