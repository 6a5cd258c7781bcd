"""Collect the statistics of a dense model once for all levels, also across processes of one machine.

In: what determines the statistics, a function that collects them.  Out: the statistics, collected now or by an earlier process.

They are kept in the cache folder, in `statistics/<digest of what determines them>.safetensors`, with a checksum. A process that needs what
another one is collecting waits for it. The files used longest ago are deleted where all together take more than `MOST_BYTES`.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from schemas.digest import json_digest
from store.backend.user_cache import delete_unused, existing_cache_folder, warn_once

log = logging.getLogger(__name__)

FOLDER = "statistics"
MOST_BYTES = 16 * 2**30  # of all statistics; larger ones are not kept
DIGEST_BYTES = 32


def kept_statistics(identity: Any, collect: Callable[[], Any], *, fresh: bool = False) -> Any:
    """Return statistics: tensors and JSON values in dicts, lists and tuples, which come back as lists.

    identity : JSON value of everything that determines them.
    fresh    : whether to collect them whatever is kept.
    """
    path = existing_cache_folder() / FOLDER / f"{json_digest(identity)}.safetensors"
    try:
        path.parent.mkdir(exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        lock.acquire()
    except OSError as error:
        warn_once(error)
        return collect()
    try:
        if not fresh and path.exists() and (read := _read(path)):
            log.info("statistics are read from %s", path)
            return read[0]
        statistics = collect()
        try:
            _write(path, statistics)
        except OSError as error:
            warn_once(error)
        return statistics
    finally:
        lock.release()


def _write(path: Path, statistics: Any) -> None:
    from safetensors.torch import save

    tensors: dict[str, Any] = {}
    structure = _packed(statistics, tensors)
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > MOST_BYTES:
        log.info("the statistics are larger than %d bytes and are not kept", MOST_BYTES)
        return
    content = save(tensors, {"structure": json.dumps(structure)})
    scratch = path.with_suffix(".partial")
    try:
        with scratch.open("wb") as stream:
            stream.write(hashlib.sha256(content).digest())
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    delete_unused(path.parent.glob("*"), MOST_BYTES)


def _read(path: Path) -> tuple[Any] | None:
    """Return the statistics in a file; None, with a warning, where it is damaged."""
    from safetensors.torch import load

    try:
        content = path.read_bytes()
        digest, content = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            raise ValueError("its checksum is another")
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        os.utime(path)
        return (_unpacked(json.loads(header["__metadata__"]["structure"]), load(content)),)
    except (OSError, ValueError, KeyError) as error:
        log.warning("%s cannot be used (%s); the statistics are collected again", path, error)
        return None


def _packed(value: Any, tensors: dict[str, Any]) -> Any:
    """Return a JSON value in which tensors are replaced by their names in `tensors`."""
    import torch

    if torch.is_tensor(value):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name, "device": str(value.device)}
    if isinstance(value, dict):
        return {"dict": {name: _packed(part, tensors) for name, part in value.items()}}
    return [_packed(part, tensors) for part in value] if isinstance(value, (list, tuple)) else value


def _unpacked(value: Any, tensors: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_unpacked(part, tensors) for part in value]
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]].to(value["device"])
        return {name: _unpacked(part, tensors) for name, part in value["dict"].items()}
    return value
