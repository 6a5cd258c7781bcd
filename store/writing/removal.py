"""Commit the removal of runs, rebased on the commits of other writers.

In: an open store, names of runs, and what the commit says.  Out: the new snapshot's id. The commit records names and digests of the runs,
so that copying does not bring them back silently.
"""

from collections.abc import Mapping, Sequence

import icechunk

from schemas.errors import HedgemarkError
from schemas.layout import RUNS, SCHEMA_VERSION
from store.backend.failures import readable
from store.backend.session_keys import SessionKeys
from store.format.root import check_root, check_untagged
from store.format.runs import parse_run_record
from store.repository.commits import REMOVED
from store.repository.repository import BRANCH, Repository
from store.writing.writer import TRIES


def commit_removal(repository: Repository, names: Sequence[str], metadata: Mapping[str, object]) -> str:
    """Remove runs from main in one commit and return its id.

    Raises HedgemarkError if another writer changes or removes one of the runs meanwhile; nothing is removed then.
    """
    with repository.lock(), readable(repository.address):
        session = repository.writable()
        keys = repository.keys_of(session)
        check_root(keys, SCHEMA_VERSION)
        check_untagged(keys, BRANCH)
        removed = _digests(keys, names)
        for name in names:
            keys.delete_group(f"{RUNS}/{name}")
        message = f"remove {names[0]}" if len(names) == 1 else f"remove {len(names)} runs"
        for _ in range(TRIES):
            try:
                return str(session.commit(message, metadata={**metadata, REMOVED: removed}))
            except icechunk.ConflictError:
                try:
                    session.rebase(icechunk.ConflictDetector())
                except icechunk.RebaseFailedError as error:
                    raise HedgemarkError(f"store {repository.address}: a writer changed one of these runs; nothing was removed") from error
        raise HedgemarkError(f"store {repository.address}: {TRIES} attempts to commit lost to other writers; nothing was removed")


def _digests(keys: SessionKeys, names: Sequence[str]) -> dict[str, str]:
    """Return the digest of every run to be removed. Raises HedgemarkError if one is gone."""
    documents = dict(zip(names, keys.get_many([f"{RUNS}/{name}/zarr.json" for name in names]), strict=True))
    if gone := [name for name, stored in documents.items() if stored is None]:
        raise HedgemarkError(f"store {keys.where}: another writer has just removed run {gone[0]}; nothing was removed, try again")
    return {name: parse_run_record(stored, name, keys.where).digest for name, stored in documents.items()}
