"""What an importer cannot read from its file: the model and how it was compressed, given by the user."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from schemas.itemset import ItemSet
from schemas.levels import NO_LEVEL, parse_level
from schemas.run import DENSE, UNKNOWN_TOKEN, Environment, FloatArray, Run, RunKey


@dataclass(frozen=True)
class Description:
    """Names for a run that a file does not name itself."""

    model: str = ""
    method: str = DENSE
    level: str = NO_LEVEL
    task: str = ""
    prompt: str = "imported"


def imported_run(described: Description, items: ItemSet, logits: FloatArray, origin: str) -> Run:
    """Return a run of imported logits; what only the full vocabulary shows is marked as unknown."""
    key = RunKey(
        model=described.model,
        method=described.method,
        level=parse_level(described.level).text,
        task=described.task,
        items_hash=items.digest,
        prompt=described.prompt,
        dtype="unknown",
        backend="imported",
    )
    unknown = np.full(len(items), np.nan, dtype=np.float32), np.full(len(items), UNKNOWN_TOKEN, dtype=np.int32)
    return Run(key, logits, *unknown, env=Environment(origin=origin))


def origin_of(kind: str, path: Path) -> str:
    """Return what an imported run says about where it came from: format, file name and SHA-256."""
    return f"{kind} {path.name} sha256:{sha256(path.read_bytes()).hexdigest()}"
