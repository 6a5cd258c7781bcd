"""Check that weight files hold one model: each tensor once, where the index says it is, and experts numbered without a gap.

In: the weight files of a folder.  Out: nothing, or an error. Libraries read all files and keep the last tensor of a name, so a file left
over from another save changes the model without a word. Experts they put together in the order of their numbers, whatever these are.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from producer.models.packed import read_tensors
from schemas.errors import HedgemarkError

EXPERT = re.compile(r"(?P<experts>.*\.experts)\.(?P<number>\d+)\.(?P<part>.+)")


def check_shards(paths: list[Path]) -> None:
    """Raise HedgemarkError for a tensor that two files hold with different values, or that is not in the file that the index names."""
    names_by_file = {path.name: frozenset(_names(path)) for path in paths}
    for name, file in _indexed(paths):
        if name not in names_by_file[file]:
            raise HedgemarkError(f"the index in {paths[0].parent} says that {file} holds tensor {name}, which it does not; get both again")
    seen: dict[str, Path] = {}
    for path in paths:
        for name in sorted(names_by_file[path.name]):
            first = seen.setdefault(name, path)
            if first != path and not _equal(_tensor(first, name), _tensor(path, name)):
                raise HedgemarkError(f"{first.name} and {path.name} in {path.parent} hold different tensors {name}; one is of another save")
    _check_spellings(frozenset(seen), paths[0].parent)
    _check_experts(frozenset(seen), paths[0].parent)


def _check_spellings(names: frozenset[str], folder: Path) -> None:
    """Raise HedgemarkError for a tensor that is stored a second time with a prefix: transformers strips `model.` and keeps one of both."""
    for name in sorted(names):
        shorter = name.partition(".")[2]
        if shorter in names:
            raise HedgemarkError(f"the weights in {folder} hold both {name} and {shorter}, which are one tensor of the model; remove one")


def _check_experts(names: frozenset[str], folder: Path) -> None:
    """Raise HedgemarkError for experts that are not numbered 0, 1, 2, ..., or are stored both one by one and in one tensor."""
    numbers: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in names:
        if match := EXPERT.fullmatch(name):
            numbers[match["experts"]][match["part"]].add(match["number"])
    for experts, parts in sorted(numbers.items()):
        all_numbers = {str(number) for number in range(max(map(len, parts.values())))}
        for part, stored in sorted(parts.items()):
            if odd := sorted(stored ^ all_numbers):
                raise HedgemarkError(f"the weights in {folder} do not number their experts from 0 on: see {experts}.{odd[0]}.{part}")
        if together := sorted(name for name in names if name.startswith(f"{experts}.") and not EXPERT.fullmatch(name)):
            raise HedgemarkError(f"the weights in {folder} hold experts one by one and together, as {together[0]}; remove one form")


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
