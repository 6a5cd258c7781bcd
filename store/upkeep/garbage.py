"""Collect garbage: delete what no branch and no tag can reach, left by crashed writers and lost commit races.

In: a store's address and an age.  Out: what was deleted. Unreachable is not yet garbage: a session that is still open has written
chunks that no snapshot mentions, and deleting them destroys it. So nothing younger than a week goes.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from schemas.errors import UsageError
from store.backend.failures import readable
from store.repository.repository import open_repository
from store.safety.check_folder import STAGED

SESSION_LIFE = timedelta(days=7)


class Garbage(NamedTuple):
    """What a collection deleted, or would delete."""

    bytes: int
    chunks: int
    manifests: int
    snapshots: int


def collect_garbage(url: str, older_than: timedelta = SESSION_LIFE, *, dry_run: bool = False, sessions_closed: bool = False) -> Garbage:
    """Delete unreachable objects older than an age, in whole seconds as Icechunk and S3 count them.

    sessions_closed : the caller vouches that no writer is open anywhere, which alone permits an age below a week.
    Raises UsageError for a younger age otherwise, and for one that goes back beyond the calendar.
    """
    if older_than < SESSION_LIFE and not sessions_closed:
        raise UsageError(f"what is younger than {SESSION_LIFE.days} days may belong to a writer still open, so {older_than} is refused")
    try:
        before = datetime.now(UTC) - older_than
    except OverflowError:
        raise UsageError(f"nothing is older than {older_than.days} days; a store's oldest objects may be a few thousand days old") from None
    repository = open_repository(url)
    repository.writable()  # refuses what cannot be written
    with repository.lock(), readable(repository.address):
        found = repository.ice.garbage_collect(before, dry_run=dry_run)
        staged = _collect_staged(repository.address.path, before, dry_run) if repository.address.path else 0
    return Garbage(found.bytes_deleted + staged, found.chunks_deleted, found.manifests_deleted, found.snapshots_deleted)


def _collect_staged(folder: Path, before: datetime, dry_run: bool) -> int:
    """Delete the files that killed writers did not finish, which Icechunk passes over, and return their bytes."""
    total = 0
    for path in folder.rglob(f"*{STAGED}*"):
        status = path.lstat()
        if status.st_mtime <= before.timestamp():
            total += status.st_size
            if not dry_run:
                path.unlink()
    return total
