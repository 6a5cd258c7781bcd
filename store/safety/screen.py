"""Screen a stranger's remote store: read its metadata once in a process of bounded memory, before this process reads them.

In: an address, and a snapshot.  Out: nothing, or the error that the screening met. Icechunk decompresses a snapshot or manifest without
a bound and gives no access to a remote store's raw objects, so `check_folder.py` cannot look first. The kernel can: a screening process may
take a bounded amount and no more, and what it could not read, its parent never opens. What passed is remembered by its snapshot, which
never changes.
"""

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from schemas import errors
from store.backend.user_cache import cache_folder, is_remembered, remember

BOUND_BYTES = 2**29  # a snapshot of 75,000 runs, as large as `check_folder.py` lets one be, takes 340 MB, and the libraries 100


def ensure_screened(address: str, snapshot: str = "") -> None:
    """Screen a snapshot, main's by default, unless this user's cache says that it passed.

    Raises what the screening raised, and StoreInvalidError where it took too much memory.
    """
    if is_remembered(_passed(address, snapshot)):
        return
    command = [sys.executable, "-m", "store.repository.screening", address, snapshot]
    screening = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        outcome, said = json.loads(screening.stdout)
    except ValueError:  # Icechunk 2 aborts when an allocation fails
        outcome, said = "StoreInvalidError", f"{refusal(address)} (exit code {screening.returncode})"
    if outcome:
        raise getattr(errors, outcome)(said)
    remember(_passed(address, snapshot))
    remember(_passed(address, said))


def refusal(address: str) -> str:
    """Return what is said of a store whose metadata do not fit into the bound."""
    return f"store {address} is refused: its metadata cannot be read within {BOUND_BYTES} bytes of memory"


def _passed(address: str, snapshot: str) -> Path:
    return cache_folder("screened") / sha256(f"{address} {snapshot}".encode()).hexdigest()
