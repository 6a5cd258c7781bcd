"""Test whether a server supports conditional writes, before the first write to it.

In: an open repository on a remote backend.  Out: nothing, or an UnsafeServerError. If a server confirms the writes of two writers to the
same branch at the same time, one of their commits is lost and neither writer learns of it.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import icechunk

from schemas.errors import UnsafeServerError
from schemas.json_text import json_bytes
from schemas.layout import group_document
from store.backend.failures import readable
from store.backend.session_keys import SessionKeys
from store.backend.user_cache import cache_folder, is_remembered, remember

ROUNDS = 4


def ensure_conditional_writes(address: str, ice: icechunk.Repository, parent: str) -> None:
    """Test a server, unless this user's cache records that it passed before. Raises UnsafeServerError with the reason."""
    if has_passed(address):
        return
    with readable(address):
        for _ in range(ROUNDS):
            branch = f"probe-{uuid4().hex[:12]}"
            try:
                _probe_create(address, ice, branch, parent)
                _probe_update(address, ice, branch)
            finally:
                ice.delete_branch(branch)
    remember(_passed(address))


def has_passed(address: str) -> bool:
    """Return whether a server passed the test before, which means that this user has written to it and trusts it."""
    return is_remembered(_passed(address))


def _passed(address: str) -> Path:
    return cache_folder("probed") / sha256(address.encode()).hexdigest()


def _probe_create(address: str, ice: icechunk.Repository, branch: str, parent: str) -> None:
    """Let two writers create the same branch at the same time; only one may succeed."""
    if _race([lambda: ice.create_branch(branch, parent)] * 2) > 1:
        raise UnsafeServerError(f"store {address} is refused: its server ignores If-None-Match, so two writers would overwrite each other")


def _probe_update(address: str, ice: icechunk.Repository, branch: str) -> None:
    """Let two writers commit on top of the same snapshot at the same time; only one may succeed."""
    sessions = [ice.writable_session(branch) for _ in range(2)]
    for session in sessions:
        SessionKeys(session, address).set_many([(f"{uuid4().hex}/zarr.json", json_bytes(group_document({})))])
    if _race([partial(session.commit, "probe") for session in sessions]) > 1:
        raise UnsafeServerError(f"store {address} is refused: its server ignores If-Match, so a commit could undo another")


def _race(writes: Sequence[Callable[[], object]]) -> int:
    """Start all writes at the same moment and return how many succeed.

    Icechunk reads before it writes, so writes one after the other would not test the server.
    """
    start = threading.Barrier(len(writes))

    def run(write: Callable[[], object]) -> bool:
        start.wait()
        return _succeeds(write)

    with ThreadPoolExecutor(len(writes)) as pool:
        return sum(pool.map(run, writes))


def _succeeds(write: Callable[[], object]) -> bool:
    try:
        write()
    except (icechunk.IcechunkError, icechunk.ConflictError):  # in version 1 a ConflictError is not an IcechunkError
        return False
    return True
