"""Convert a store to the current schema on a separate branch, with tags for the store before and after; main moves last.

In: a store's address.  Out: the snapshot id, and the tags that name the store before and after.
"""

from collections.abc import Mapping
from typing import NamedTuple
from uuid import uuid4

from schemas.layout import ITEMS, RUNS, SCHEMA_VERSION, SEALED_ROOT
from schemas.migrate import STEPS, Step, migrate_nodes
from store.backend.failures import readable
from store.format.root import root_nodes, stored_schema
from store.repository.repository import BRANCH, Repository, open_repository
from store.upkeep.tags import write_tag


class Migration(NamedTuple):
    """Result of a migration: the new snapshot, and the tags of the store before and after."""

    snapshot: str
    before: str
    after: str


def migrate_store(url: str, steps: Mapping[int, Step] = STEPS, target: int = SCHEMA_VERSION) -> Migration | None:
    """Migrate a store to the target version, or return None if it already has that version.

    The work is done on a separate branch; main moves to it at the end in one step, and only if nobody has written to main meanwhile.
    """
    repository = open_repository(url)
    with repository.lock(), readable(repository.address):
        start = repository.ice.lookup_branch(BRANCH)
        version = stored_schema(repository.keys_of(repository.session()))
        if version >= target:
            return None
        names = Migration("", f"schema-{version}-{start}", f"schema-{target}-{start}")
        branch = f"migrate-{uuid4().hex[:8]}"
        repository.ice.create_branch(branch, start)
        try:
            snapshot = _rewrite(repository, branch, version, steps, target)
            _tag_before(repository, names.before, start, version)
            write_tag(repository, names.after, snapshot)
            repository.ice.reset_branch(BRANCH, snapshot, from_snapshot_id=start)
        finally:
            repository.ice.delete_branch(branch)
    return names._replace(snapshot=snapshot)


def _tag_before(repository: Repository, tag: str, snapshot: str, version: int) -> None:
    """Name the store before its migration. Since its root is sealed, it records its tags, and one that it does not record is refused."""
    if version >= SEALED_ROOT:
        write_tag(repository, tag, snapshot)
    else:
        repository.ice.create_tag(tag, snapshot)


def _rewrite(repository: Repository, branch: str, version: int, steps: Mapping[int, Step], target: int) -> str:
    session = repository.ice.writable_session(branch)
    keys = repository.keys_of(session)
    for group in [f"{kind}/{name}" for kind in (ITEMS, RUNS) for name in keys.children(kind)]:
        nodes = keys.nodes_under(group)
        keys.delete_group(group)
        keys.set_many(migrate_nodes(nodes, steps, target))
    keys.set_many(root_nodes(target)[:1])
    return str(session.commit(f"migrate from schema {version} to {target}"))
