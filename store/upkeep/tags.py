"""Tags: names for snapshots that never move, and that say within the snapshot what they name.

In: a store's address, a tag and a snapshot.  Out: the tag made. Icechunk keeps a tag as a small file with a snapshot id, which can be
exchanged for another's. So the tag names a commit of its own beside main, whose root says the tag and the digest of all that it holds:
reading by a tag checks the first, `store verify` both.
"""

import re
from uuid import uuid4

from schemas.errors import UsageError
from store.backend.failures import readable
from store.format.root import MANIFEST, TAG, contents_digest, read_root, root_document
from store.repository.repository import Repository, open_repository

TAG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def tag_snapshot(url: str, tag: str, at: str | None = None) -> str:
    """Name a snapshot, the newest by default, and return the id that the tag names. A tag never moves: an existing one is a UsageError."""
    if TAG_NAME.fullmatch(tag) is None:
        raise UsageError(f"tag {tag[:80]!r} is not a name: letters, digits, dot, dash and underscore, at most 64")
    repository = open_repository(url)
    repository.writable()  # refuses what cannot be written
    snapshot, _ = repository.keys(at)
    with repository.lock(), readable(repository.address):
        if tag in (tags := repository.tags()):
            raise UsageError(f"tag {tag!r} already names snapshot {tags[tag]} of {url}; tags do not move")
        return write_tag(repository, tag, snapshot)


def write_tag(repository: Repository, tag: str, snapshot: str) -> str:
    """Commit what a tag records beside main, name that commit, and return its id; the caller holds the lock."""
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
    return tagged
