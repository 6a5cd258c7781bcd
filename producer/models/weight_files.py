"""Which files of a folder are the weights: those that loading the model reads, and no others.

A repository may hold its weights twice, `consolidated.safetensors` beside `model-*.safetensors`. The order is that of transformers: one
safetensors file, else all that its index names; without either whatever safetensors there are; and *.bin where there are none.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import HedgemarkError

KINDS = (("model.safetensors", "*.safetensors"), ("pytorch_model.bin", "*.bin"))
EXPECTED = "model.safetensors, all files of a model.safetensors.index.json, other *.safetensors, or the same as pytorch_model.bin"


def weight_files(folder: Path, gguf: str = "") -> list[Path]:
    """Return the weight files in order of name, none where they are not here or one that the index names is missing."""
    for names in [[gguf]] if gguf else wanted_files(folder):
        found = [path for name in names for path in (folder.glob(name) if "*" in name else [folder / name]) if path.is_file()]
        if len(found) >= len(names):
            return sorted(found)
    return []


def wanted_files(folder: Path) -> Iterator[list[str]]:
    """Yield the names or patterns that would be the weights, best first; the index is read when it is their turn."""
    for single, others in KINDS:
        yield [single]
        index = folder / f"{single}.index.json"
        if index.is_file():
            yield _indexed(index)
            return
        yield [others]


def _indexed(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HedgemarkError(f"{index} is damaged: it names no weight files") from error
