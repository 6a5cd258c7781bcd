"""The process that screens an untrusted remote store: `python -m store.repository.screening ADDRESS SNAPSHOT`.

In: an address, and a snapshot, "" for the newest of main.  Out: a JSON pair on stdout: the name and message of an error, or "" and the
snapshot's id. `store.safety.screen` starts this process.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import icechunk

from schemas import errors
from schemas.layout import ITEM_ARRAYS, ITEMS, RUN_ARRAYS, RUNS, TEXT_ARRAYS, TOKEN_ARRAYS
from store.backend.loop import wait
from store.backend.session_keys import SessionKeys
from store.repository.repository import open_repository
from store.safety.screen import BOUND_BYTES, refusal

LIMIT_BYTES = 2 * BOUND_BYTES  # twice the bound, since a growing buffer doubles: if that fails at the limit, the bound was exceeded
IN_FLIGHT = 16  # requests at the same time; each needs memory for a thread's stack


def main(address: str, snapshot: str) -> None:
    """Read all metadata of a snapshot within the limit; print the name and message of an error, or an empty name and the snapshot."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_BYTES, LIMIT_BYTES))
    try:
        outcome, answer = "", read_metadata(address, snapshot or None)
    except errors.HedgemarkError as error:
        outcome, answer = type(error).__name__, str(error)
    if _peak_bytes() > BOUND_BYTES:  # Icechunk 1 reports a failed allocation as another error, or not at all
        outcome, answer = "StoreInvalidError", refusal(address)
    print(json.dumps([outcome, answer]))


def read_metadata(address: str, at: str | None) -> str:
    """Make Icechunk load branches and tags, a snapshot, and every manifest that a Reader would load; return the snapshot's id."""
    repository = open_repository(address, screened=True)
    session = repository.session(at)
    keys = repository.keys_of(session)
    try:
        session.all_virtual_chunk_locations()
    except icechunk.IcechunkError:  # stopped at a damaged manifest; the manifests of the arrays that a Reader opens are still to be loaded
        wait(_touch(keys, _first_chunks(keys)))
    return str(session.snapshot_id)


def _first_chunks(keys: SessionKeys) -> list[str]:
    arrays = {ITEMS: {**ITEM_ARRAYS, **TEXT_ARRAYS}, RUNS: {**RUN_ARRAYS, **TOKEN_ARRAYS}}
    return [
        f"{kind}/{name}/{array}/{'/'.join(['c', *'0' * len(spec.dims)])}"
        for kind, specs in arrays.items()
        for name in keys.children(kind)
        for array, spec in specs.items()
    ]


async def _touch(keys: SessionKeys, chunks: Sequence[str]) -> None:
    for start in range(0, len(chunks), IN_FLIGHT):
        await asyncio.gather(*map(keys.exists, chunks[start : start + IN_FLIGHT]), return_exceptions=True)


def _peak_bytes() -> int:
    """Return this process's peak memory in bytes; on Linux not from `ru_maxrss`, which includes the parent's memory from before exec."""
    import resource

    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


if __name__ == "__main__":
    main(*sys.argv[1:])
