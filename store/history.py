"""The history of a store: its commits, and the tags on them.

In: a store's address.  Out: a table of commits.
"""

from typing import Any

import polars as pl

from store.failures import readable
from store.repository import Repository, open_repository

LOG_SCHEMA = {"snapshot": pl.String, "written": pl.String, "runs": pl.Int64, "tags": pl.String, "message": pl.String}


def history(url: str, at: str | None = None) -> pl.DataFrame:
    """Return the commits that lead to a snapshot, newest first; `runs` is how many a commit wrote."""
    repository = open_repository(url)
    snapshot, _ = repository.keys(at)
    with readable(repository.address):
        tags = _tags(repository)
        rows = [_commit(info, tags) for info in repository.ice.ancestry(snapshot_id=snapshot)]
    return pl.DataFrame(rows, schema=LOG_SCHEMA, orient="row")


def _commit(info: Any, tags: dict[str, list[str]]) -> tuple[Any, ...]:
    written = info.written_at.isoformat(timespec="seconds")
    return info.id, written, info.metadata.get("runs", 0), " ".join(tags.get(info.id, [])), info.message


def _tags(repository: Repository) -> dict[str, list[str]]:
    """Return the sorted tags of each tagged snapshot."""
    tags: dict[str, list[str]] = {}
    for tag in sorted(repository.ice.list_tags()):
        tags.setdefault(repository.ice.lookup_tag(tag), []).append(tag)
    return tags
