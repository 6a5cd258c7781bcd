"""Tags: names of snapshots that never move, recorded in the snapshot itself so that a replaced tag file is noticed.

In: a store's address, a tag and a snapshot.  Out: the id of the snapshot. Icechunk stores a tag as a small file with a snapshot
id, and such a file can be replaced by another's. So each tag gets a commit of its own on a side branch, whose root records the tag and a
digest of all contents: opening a store at a tag checks the tag, `store verify` checks both.
"""

import re
from uuid import uuid4

from schemas.errors import UsageError
from store.backend.failures import readable
from store.format.root import MANIFEST, TAG, contents_digest, read_root, root_document
from store.repository.repository import Repository, open_repository

TAG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def tag_snapshot(url: str, tag: str, at: str | None = None) -> str:
    """Name a snapshot, the newest by default, and return its id. A tag never moves: an existing one is a UsageError."""
    repository = open_repository(url)
    repository.writable()  # raises if the store is read-only
    snapshot, _ = repository.keys(at)
    with repository.lock(), readable(repository.address):
        check_new_tag(repository, tag)
        write_tag(repository, tag, snapshot)
    return snapshot


def check_new_tag(repository: Repository, tag: str) -> None:
    """Raise UsageError for a tag that is not a name, or that exists already."""
    if TAG_NAME.fullmatch(tag) is None:
        raise UsageError(f"tag {tag[:80]!r} is not a name: letters, digits, dot, dash and underscore, at most 64")
    if tag in (tags := repository.tags()):
        raise UsageError(f"tag {tag!r} already names snapshot {repository.tagged(tags[tag])} of {repository.address}; tags do not move")


def write_tag(repository: Repository, tag: str, snapshot: str) -> None:
    """Commit a tag's record on a side branch and create the tag for that commit. The caller holds the lock."""
    branch = f"tag-{uuid4().hex[:12]}"
    repository.ice.create_branch(branch, snapshot)
    try:
        session = repository.ice.writable_session(branch)
        keys = repository.keys_of(session)
        keys.set_many([("zarr.json", root_document({**read_root(keys), TAG: tag, MANIFEST: contents_digest(keys)}))])
        tagged = str(session.commit(f"tag {tag}", metadata={"tag": tag}))
        repository.ice.create_tag(tag, tagged)
    finally:
        repository.ice.delete_branch(branch)
