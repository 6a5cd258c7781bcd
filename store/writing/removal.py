"""Commit the removal of runs, rebased on the commits of other writers.

In: an open store, names of runs, and what the commit says.  Out: the new snapshot's id.
"""

from collections.abc import Mapping, Sequence

import icechunk

from schemas.errors import HedgemarkError
from schemas.layout import RUNS, SCHEMA_VERSION
from store.backend.failures import readable
from store.format.root import check_root, check_untagged
from store.repository.repository import BRANCH, Repository
from store.writing.writer import TRIES


def commit_removal(repository: Repository, names: Sequence[str], metadata: Mapping[str, object]) -> str:
    """Remove runs from main in one commit and return its id.

    Raises HedgemarkError if another writer changes one of the runs meanwhile; nothing is removed then.
    """
    with repository.lock(), readable(repository.address):
        session = repository.writable()
        keys = repository.keys_of(session)
        check_root(keys, SCHEMA_VERSION)
        check_untagged(keys, BRANCH)
        for name in names:
            keys.delete_group(f"{RUNS}/{name}")
        message = f"remove {names[0]}" if len(names) == 1 else f"remove {len(names)} runs"
        for _ in range(TRIES):
            try:
                return str(session.commit(message, metadata=dict(metadata)))
            except icechunk.ConflictError:
                try:
                    session.rebase(icechunk.ConflictDetector())
                except icechunk.RebaseFailedError as error:
                    raise HedgemarkError(f"store {repository.address}: a writer changed one of these runs; nothing was removed") from error
        raise HedgemarkError(f"store {repository.address}: {TRIES} attempts to commit lost to other writers; nothing was removed")
