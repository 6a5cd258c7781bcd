"""Copy tags to another store: under each tag the target then has exactly the runs and item sets that the source has under it.

In: the addresses of two stores.  Out: `TagCopies`. Snapshots have other ids in every store, so a tag's contents are put together on a side
branch of the target, from its own runs where they are the same bytes, and compared with the source's by digest before the tag is given.
"""

from collections.abc import Iterator
from typing import NamedTuple
from uuid import uuid4

from schemas.errors import StoreInvalidError, UsageError
from schemas.layout import ITEMS, RUNS, SCHEMA_VERSION
from schemas.private import shareable
from store.backend.failures import readable
from store.backend.session_keys import SessionKeys
from store.format.packed_run import pack_stored_run
from store.format.root import contents_digest, stored_schema
from store.reading.catalog import read_records
from store.repository.repository import BRANCH, Repository, open_repository
from store.upkeep.tags import check_new_tag, write_tag
from store.writing.commit_note import commit_metadata


class TagCopies(NamedTuple):
    """Tags copied, tags that were there with the same contents, tags that name other contents there, and tags of an older schema."""

    copied: list[str]
    present: list[str]
    conflicts: list[str]
    older: list[str]


def copy_tags(source: str, target: str, at: str | None = None, note: str = "") -> TagCopies:
    """Copy every tag of a store to another one, or only the tag `at`. A tag that names other contents there is listed and does not move.

    Raises UsageError if `at` is no tag, StoreInvalidError if a run or item set under a tag is damaged.
    """
    there, here = open_repository(source), open_repository(target)
    tags = [tag for tag in there.tags() if at in (None, tag)]
    if at is not None and not tags:
        raise UsageError(f"{at!r} is no tag of {source}, so there is none to copy; its tags: {', '.join(there.tags()) or 'none'}")
    done = TagCopies([], [], [], [])
    for tag in tags:
        keys = there.keys(tag)[1]
        if stored_schema(keys) < SCHEMA_VERSION:
            done.older.append(tag)
        elif tag in here.tags():
            same = contents_digest(here.keys(tag)[1]) == contents_digest(keys)
            (done.present if same else done.conflicts).append(tag)
        else:
            _copy(keys, here, tag, note)
            done.copied.append(tag)
    return done


def _copy(keys: SessionKeys, target: Repository, tag: str, note: str) -> None:
    target.writable()  # raises if the store is read-only or its server unsafe
    branch = f"copy-{uuid4().hex[:12]}"
    with target.lock(), readable(target.address):
        check_new_tag(target, tag)
        start = target.ice.lookup_branch(BRANCH)
        target.ice.create_branch(branch, start)
        try:
            session = target.ice.writable_session(branch)
            _make_equal(target.keys_of(session), keys)
            if contents_digest(target.keys_of(session)) != contents_digest(keys):
                raise StoreInvalidError(f"store {target.address}: the contents of tag {tag!r} do not come out as in {keys.where}")
            message = f"contents of tag {tag} of {shareable(keys.where)}"
            changed = session.has_uncommitted_changes
            snapshot = str(session.commit(message, metadata=commit_metadata({"runs": 0}, note))) if changed else start
            write_tag(target, tag, snapshot)
        finally:
            target.ice.delete_branch(branch)


def _make_equal(copy: SessionKeys, original: SessionKeys) -> None:
    """Delete what the original lacks, and bring what differs from it, verified."""
    records = read_records(original)
    of_run = {f"{RUNS}/{name}": name for name in records}
    of_items = {f"{ITEMS}/{record.key.items_hash}": name for name, record in records.items()}
    groups = [f"{kind}/{name}" for kind in (ITEMS, RUNS) for name in original.children(kind)]
    for group in (f"{kind}/{name}" for kind in (ITEMS, RUNS) for name in copy.children(kind)):
        if group not in groups:
            copy.delete_group(group)
    for group in _differing(copy, original, groups):
        copy.delete_group(group)
        if group in of_run or group in of_items:
            name = of_run.get(group) or of_items[group]
            packed = pack_stored_run(original, name, records[name])
            copy.set_many(packed.nodes if group in of_run else packed.items())
        else:  # an item set without runs
            copy.set_many(original.nodes_under(group))


def _differing(copy: SessionKeys, original: SessionKeys, groups: list[str]) -> Iterator[str]:
    """Yield the groups whose own document, which has the digest of the arrays and a seal, is another in the two."""
    names = [f"{group}/zarr.json" for group in groups]
    for group, copied, stored in zip(groups, copy.get_many(names), original.get_many(names), strict=True):
        if copied != stored:
            yield group
