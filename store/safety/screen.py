"""Screen an untrusted remote store: read its metadata once in a process with limited memory, before this process reads them.

In: an address and a snapshot.  Out: nothing, or the error of the screening process. Icechunk decompresses snapshots and manifests without
a limit and gives no access to a remote store's raw files, so `check_folder.py` cannot check them first. Instead the kernel limits the
memory of the screening process, and what that process could not read is never opened here. Snapshots never change, so those that passed
are remembered.
"""

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from schemas import errors
from store.backend.user_cache import cache_folder, is_remembered, remember

BOUND_BYTES = 2**29  # a snapshot of 75,000 runs, the largest that `check_folder.py` accepts, takes 340 MB, and the libraries 100 MB


def ensure_screened(address: str, snapshot: str = "") -> None:
    """Screen a snapshot, by default the newest of main, unless this user's cache records that it passed before.

    Raises the error that the screening process raised, and StoreInvalidError if it needed too much memory.
    """
    if is_remembered(_passed(address, snapshot)):
        return
    command = [sys.executable, "-m", "store.repository.screening", address, snapshot]
    screening = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        outcome, answer = json.loads(screening.stdout)
    except ValueError:  # no output, because Icechunk 2 aborts when an allocation fails
        outcome, answer = "StoreInvalidError", f"{refusal(address)} (exit code {screening.returncode})"
    if outcome:
        raise getattr(errors, outcome)(answer)
    remember(_passed(address, snapshot))
    remember(_passed(address, answer))


def refusal(address: str) -> str:
    """Return the message for a store whose metadata need more memory than the bound."""
    return f"store {address} is refused: its metadata cannot be read within {BOUND_BYTES} bytes of memory"


def _passed(address: str, snapshot: str) -> Path:
    return cache_folder("screened") / sha256(f"{address} {snapshot}".encode()).hexdigest()
