"""The state file of the watch: it remembers what was read, so that no log row is read twice and no question is counted twice.

In: the file.  Out: a JSON value that belongs to one predictor. A digest detects changes. Questions are identified by a 64-bit hash of
their id.
"""

import base64
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from analyzer.predictor.document import sealed
from schemas.errors import HedgemarkError, UsageError
from schemas.json_text import parse_json, read_text
from store.exchange.whole_file import check_writable, write_document

FORMAT, VERSION = "hedgemark-watch", 3
PENDING = 255  # stands in place of the answer's index while the answer is unknown


@contextmanager
def sole_use(path: Path) -> Iterator[None]:
    """Keep other monitors from a state file, from before it is read until it is written, so that none erases what another counted.

    Raises HedgemarkError at once if another monitor uses the file, and UsageError for a folder that cannot be written to.
    """
    check_writable(path)
    target = Path(os.path.realpath(path))
    lock = FileLock(target.with_name(f".{target.name[:100]}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise HedgemarkError(f"another monitor is using the state {path}; nothing was counted here, so run this one again") from None
    except (OSError, NotImplementedError) as error:
        raise HedgemarkError(f"the state {path} cannot be locked ({error}); keep it on a file system that has locks") from error
    try:
        yield
    finally:
        lock.release()


def read_state(path: Path, predictor: str, delta: str | None) -> dict[str, Any] | None:
    """Return the state in a file; None if there is no file. Raises UsageError if it is damaged or belongs to another predictor.

    delta : the delta that the state must have; None for any.
    """
    if not path.exists():
        return None
    try:
        value = parse_json(read_text(path), finite=True)
    except ValueError as error:
        raise UsageError(f"state {path}: {error}") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT or value.get("version") != VERSION:
        raise UsageError(f"state {path} is not one of this version; expected format {FORMAT!r}, version {VERSION}")
    if sealed(value)["digest"] != value.get("digest"):
        raise UsageError(f"state {path} was changed after it was written: its digest does not match; start again without it")
    if value["predictor"] != predictor or delta not in (None, value["delta"]):
        raise UsageError(f"state {path} belongs to another predictor or another delta; give each its own state file")
    return value


def write_state(path: Path, value: Mapping[str, Any]) -> None:
    """Write a state, completely or not at all. Raises UsageError for a missing folder, HedgemarkError if the disk is full."""
    write_document(path, json.dumps(sealed({"format": FORMAT, "version": VERSION, **value})).encode())


def id_hash(text: str) -> int:
    """Return the 64-bit hash that identifies a question."""
    return int.from_bytes(sha256(text.encode()).digest()[:8], "little")


def pack_answers(answers: Mapping[int, int]) -> dict[str, str]:
    """Return the mapping from id hash to answer as two base64 texts."""
    order = sorted(answers)
    hashes, values = np.array(order, dtype="<u8"), np.array([answers[one] for one in order], dtype=np.uint8)
    return {"ids": base64.b64encode(hashes.tobytes()).decode(), "answers": base64.b64encode(values.tobytes()).decode()}


def unpack_answers(value: Mapping[str, str]) -> dict[int, int]:
    """Return the mapping that `pack_answers` encoded."""
    hashes = np.frombuffer(base64.b64decode(value["ids"]), dtype="<u8")
    return dict(zip(hashes.tolist(), np.frombuffer(base64.b64decode(value["answers"]), dtype=np.uint8).tolist(), strict=True))
