"""What a signature covers besides stored bytes: the history that `store log` shows, and what each tag names.

In: a repository.  Out: a record for the root of a signed snapshot, and what differs from it later. The commit of a signature or tag cannot
cover itself, so such commits at the end of a history are left out; their messages are fixed.
"""

from itertools import dropwhile
from typing import Any

from schemas.digest import json_digest
from store.backend.failures import readable
from store.format.root import TAG, contents_digest, read_root
from store.repository.commits import commits
from store.repository.repository import Repository

SIGN_MESSAGE = "sign the manifest"


def record(repository: Repository, snapshot: str, tag: str = "") -> dict[str, Any]:
    """Return the digest of a snapshot's history, and for each tag the digests of contents and history that it names.

    tag : is about to be given to the snapshot.
    """
    history = history_digest(repository, snapshot)
    tags = {name: _named(repository, tagged) for name, tagged in repository.tags().items()}
    if tag:
        tags[tag] = [contents_digest(repository.keys_of(repository.session(snapshot))), history]
    return {"history": history, "tags": tags}


def differences(repository: Repository, snapshot: str, signed: dict[str, Any], at: str | None) -> tuple[list[str], list[str]]:
    """Return the problems and notes of a snapshot whose history or tags are not those that were signed; `at` as it was asked for."""
    store_name = f"store {repository.address}"
    problems, notes = [], []
    if history_digest(repository, snapshot) != signed["history"]:
        problems.append(f"{store_name}: its history (messages and times of its commits) is not the one that was signed")
    now = repository.tags()
    chosen = sorted({*now, *signed["tags"]}) if at is None and not repository.address.read_only else [tag for tag in now if tag == at]
    for tag in chosen:
        if tag not in signed["tags"]:
            notes.append(f"tag {tag}: the signature does not cover it, because the tag was given later; sign the store again")
        elif tag not in now or _named(repository, now[tag]) != signed["tags"][tag]:
            problems.append(f"{store_name}: tag {tag!r} does not name what it named when the store was signed")
    return problems, notes


def history_digest(repository: Repository, snapshot: str) -> str:
    """Return the SHA-256 of id, message, time and metadata of each commit, without those of signatures and tags at the end."""
    with readable(repository.address):
        last = dropwhile(_of_a_name, commits(repository, snapshot))
        return json_digest([[info.id, info.message, info.written_at.isoformat(), dict(info.metadata)] for info in last])


def _of_a_name(info: Any) -> bool:
    metadata = dict(info.metadata)
    return (info.message, metadata) == (SIGN_MESSAGE, {}) or (set(metadata) == {TAG} and info.message == f"tag {metadata[TAG]}")


def _named(repository: Repository, snapshot: str) -> list[str]:
    keys = repository.keys_of(repository.session(snapshot))
    read_root(keys)
    return [contents_digest(keys), history_digest(repository, snapshot)]
