"""Delete leftovers of crashed writers and lost commits: files that no branch and no tag can reach.

In: a store's address and an age.  Out: what was deleted. A file that cannot be reached may still be needed: a writer that is still open
has written chunks that no snapshot mentions yet. So nothing younger than a week is deleted.
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
    """Numbers of bytes and files that were, or with `dry_run` would be, deleted."""

    bytes: int
    chunks: int
    manifests: int
    snapshots: int


def collect_garbage(url: str, older_than: timedelta = SESSION_LIFE, *, dry_run: bool = False, sessions_closed: bool = False) -> Garbage:
    """Delete unreachable files older than an age, in whole seconds as Icechunk and S3 count them.

    sessions_closed : the caller guarantees that no writer is open anywhere; only then may the age be below a week.
    Raises UsageError for a smaller age without that guarantee, and for an age beyond the calendar.
    """
    if older_than < SESSION_LIFE and not sessions_closed:
        raise UsageError(f"files younger than {SESSION_LIFE.days} days may belong to an open writer, so an age of {older_than} is refused")
    try:
        before = datetime.now(UTC) - older_than
    except OverflowError:
        raise UsageError(f"nothing is older than {older_than.days} days; a store's oldest objects may be a few thousand days old") from None
    repository = open_repository(url)
    repository.writable()  # raises if the store is read-only
    with repository.lock(), readable(repository.address):
        summary = repository.ice.garbage_collect(before, dry_run=dry_run)
        staged = _collect_staged(repository.address.path, before, dry_run) if repository.address.path else 0
    return Garbage(summary.bytes_deleted + staged, summary.chunks_deleted, summary.manifests_deleted, summary.snapshots_deleted)


def _collect_staged(folder: Path, before: datetime, dry_run: bool) -> int:
    """Delete unfinished files of killed writers, which Icechunk does not delete, and return their total size in bytes."""
    total = 0
    for path in folder.rglob(f"*{STAGED}*"):
        status = path.lstat()
        if status.st_mtime <= before.timestamp():
            total += status.st_size
            if not dry_run:
                path.unlink()
    return total
