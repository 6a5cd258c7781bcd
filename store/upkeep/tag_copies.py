"""Copy tags to another store: under each tag the target then has exactly the runs and item sets that the source has under it.

In: the addresses of two stores.  Out: `TagCopies`. Snapshots have other ids in every store, so a tag's contents are put together on a side
branch of the target, from its own runs where they are the same bytes, and compared with the source's by digest before the tag is given. The
commit there has the author and the note of the snapshot that was tagged.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from uuid import uuid4

from schemas.errors import StoreInvalidError, UsageError
from schemas.layout import ITEMS, RUNS, SCHEMA_VERSION
from schemas.private import shareable
from store.backend.failures import readable
from store.backend.session_keys import SessionKeys
from store.format.packed_run import pack_stored_run
from store.format.root import MANIFEST, contents_digest, read_root, root_document, stored_schema
from store.reading.catalog import read_records
from store.repository.commits import commits
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
        tagged, keys = there.keys(tag)
        if stored_schema(keys) < SCHEMA_VERSION:
            done.older.append(tag)
        elif tag in here.tags():
            same = contents_digest(here.keys(tag)[1]) == contents_digest(keys)
            (done.present if same else done.conflicts).append(tag)
        else:
            _copy(keys, here, tag, _noted(there, tagged, note))
            done.copied.append(tag)
    return done


def _noted(source: Repository, tagged: str, note: str) -> dict[str, Any]:
    """Return the metadata of a copy: author and note of the snapshot that was tagged, else those of who copies."""
    source.session(tagged)  # which screens it, where the store is remote and not this user's
    with readable(source.address):
        original = {name: str(value) for name, value in next(commits(source, tagged)).metadata.items() if name in ("author", "note")}
    return {**commit_metadata({"runs": 0}, note), **original}


def _copy(keys: SessionKeys, target: Repository, tag: str, noted: Mapping[str, Any]) -> None:
    target.writable()  # raises if the store is read-only or its server unsafe
    branch = f"copy-{uuid4().hex[:12]}"
    with target.lock(), readable(target.address):
        check_new_tag(target, tag)
        start = target.ice.lookup_branch(BRANCH)
        target.ice.create_branch(branch, start)
        try:
            session = target.ice.writable_session(branch)
            copied = target.keys_of(session)
            _make_equal(copied, keys)
            if contents_digest(copied) != contents_digest(keys):
                raise StoreInvalidError(f"store {target.address}: the contents of tag {tag!r} do not come out as in {keys.where}")
            message = f"contents of tag {tag} of {shareable(keys.where)}"
            # the digest makes a commit of its own, which author and note stand with, also where main has the same contents
            copied.set_many([("zarr.json", root_document({**read_root(copied), MANIFEST: contents_digest(copied)}))])
            write_tag(target, tag, str(session.commit(message, metadata=dict(noted))))
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
