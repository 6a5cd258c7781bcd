"""The commits that lead to a snapshot, and the runs that they removed.

In: a repository and a snapshot.  Out: commits newest first, or for each removed run when, by whom and why it was removed. A removal records
names and digests of its runs in its commit. One by a version before that recorded none: what it removed is what its snapshot lacks of the
snapshot before it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from schemas.errors import StoreInvalidError
from schemas.layout import RUNS
from store.backend.failures import readable
from store.format.runs import parse_run_record
from store.repository.repository import Repository

REMOVED = "removed"  # in a commit's metadata: the digest of every run that it removed, by name
SHOWN = 3  # names in one sentence


@dataclass(frozen=True)
class Removed:
    """A run that a store held and `store rm` removed: its digest, the snapshot without it, and what the removal says of itself."""

    digest: str
    snapshot: str
    written: datetime
    author: str
    reason: str

    def __str__(self) -> str:
        """Say when, by whom and why, as the end of a sentence."""
        by = f" by {self.author}" if self.author else ""
        return f"on {self.written:%Y-%m-%d at %H:%M} UTC{by}: {self.reason or 'no reason is recorded'}"


Removals = Mapping[str, list[Removed]]


def commits(repository: Repository, snapshot: str) -> Iterator[Any]:
    """Yield the commits that lead to a snapshot, newest first. Raises StoreInvalidError if the history is a circle."""
    seen = set()
    for info in repository.ice.ancestry(snapshot_id=snapshot):
        if info.id in seen:
            raise StoreInvalidError(f"store {repository.address}: its history is a circle from snapshot {info.id}; a file was exchanged")
        seen.add(info.id)
        yield info


def removals(repository: Repository, snapshot: str) -> Removals:
    """Return every removal of a run in the history of a snapshot, by the run's name, newest first; the run may be there again since."""
    found: dict[str, list[Removed]] = {}
    with readable(repository.address):
        for info in commits(repository, snapshot):
            author, note = (str(info.metadata.get(name, "")) for name in ("author", "note"))
            for name, digest in _removed_by(repository, info).items():
                found.setdefault(name, []).append(Removed(digest, info.id, info.written_at, author, note))
    return found


def removal_of(found: Removals, name: str, digest: str) -> Removed | None:
    """Return the newest removal of a run with this name and digest, None if a run of this content was never removed."""
    return next((removed for removed in found.get(name, ()) if removed.digest == digest), None)


def removed_sentences(removed: Mapping[str, Removed], where: str) -> list[str]:
    """Return for each removal from a store what it removed, when, by whom and why: `run NAME, removed from STORE on ...`."""
    by_commit: dict[str, list[str]] = {}
    for name, each in removed.items():
        by_commit.setdefault(each.snapshot, []).append(name)
    return [f"{_named(names)}, removed from {where} {removed[names[0]]}" for names in by_commit.values()]


def _named(names: list[str]) -> str:
    if len(names) == 1:
        return f"run {names[0]}"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} runs ({', '.join(names[:SHOWN])}{more})"


def _removed_by(repository: Repository, info: Any) -> dict[str, str]:
    recorded = info.metadata.get(REMOVED)
    if isinstance(recorded, dict):
        return {str(name): str(digest) for name, digest in recorded.items()}
    if info.message.startswith("remove ") and info.metadata.get("runs") == 0 and info.parent_id:
        before, after = (repository.keys_of(repository.session(snapshot)) for snapshot in (info.parent_id, info.id))
        names = sorted(set(before.children(RUNS)) - set(after.children(RUNS)))
        documents = before.get_many([f"{RUNS}/{name}/zarr.json" for name in names])
        return {name: parse_run_record(stored, name, before.where).digest for name, stored in zip(names, documents, strict=True)}
    return {}
