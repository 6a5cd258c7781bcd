"""The history of a store: its commits, names for them, and what changed from one to another.

In: a store's address, tags or snapshot ids.  Out: tables, and a tag made.
"""

import re
from typing import Any

import numpy as np
import polars as pl

from schemas.errors import UsageError
from schemas.run import Run
from store.backend.failures import readable
from store.reading.reader import open_reader
from store.repository.repository import Repository, open_repository

LOG_SCHEMA = {"snapshot": pl.String, "written": pl.String, "runs": pl.Int64, "tags": pl.String, "message": pl.String}
DIFF_SCHEMA = {"change": pl.String, "name": pl.String, "items_changed": pl.Int64, "largest_logit_change": pl.Float64}
TAG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def history(url: str, at: str | None = None) -> pl.DataFrame:
    """Return the commits that lead to a snapshot, newest first; `runs` is how many a commit wrote."""
    repository = open_repository(url)
    snapshot, _ = repository.keys(at)
    with readable(repository.address):
        tags = _tags_of_snapshots(repository)
        rows = [_commit(info, tags) for info in repository.ice.ancestry(snapshot_id=snapshot)]
    return pl.DataFrame(rows, schema=LOG_SCHEMA, orient="row")


def diff_snapshots(url: str, before: str, after: str) -> pl.DataFrame:
    """Return the runs added, removed and replaced between two tags or snapshots.

    For a replaced run, `items_changed` counts items whose logits differ, and `largest_logit_change` is the largest absolute
    difference of two finite logits (null where there is none).
    """
    old, new = open_reader(url, before), open_reader(url, after)
    digests = [dict(reader.catalog.select("name", "digest").iter_rows()) for reader in (old, new)]
    rows: list[tuple[Any, ...]] = []
    for name in sorted({**digests[0], **digests[1]}):
        was, now = digests[0].get(name), digests[1].get(name)
        if was is None or now is None:
            rows.append(("added" if was is None else "removed", name, None, None))
        elif was != now:
            rows.append(("replaced", name, *_change(old.run(name), new.run(name))))
    return pl.DataFrame(rows, schema=DIFF_SCHEMA, orient="row")


def tag_snapshot(url: str, tag: str, at: str | None = None) -> str:
    """Name a snapshot, the newest by default, and return its id. A tag never moves: an existing one is a UsageError."""
    if TAG_NAME.fullmatch(tag) is None:
        raise UsageError(f"tag {tag[:80]!r} is not a name: letters, digits, dot, dash and underscore, at most 64")
    repository = open_repository(url)
    snapshot, _ = repository.keys(at)
    with repository.lock(), readable(repository.address):
        if tag in (tags := repository.tags()):
            raise UsageError(f"tag {tag!r} already names snapshot {tags[tag]} of {url}; tags do not move")
        repository.ice.create_tag(tag, snapshot)
    return snapshot


def _change(old: Run, new: Run) -> tuple[int, float | None]:
    difference = np.abs(old.logits.astype(np.float64) - new.logits.astype(np.float64))
    same = (old.logits == new.logits) | (np.isnan(old.logits) & np.isnan(new.logits))
    finite = difference[np.isfinite(difference)]
    return int(np.any(~same, axis=1).sum()), float(finite.max()) if finite.size else None


def _commit(info: Any, tags: dict[str, list[str]]) -> tuple[Any, ...]:
    written = info.written_at.isoformat(timespec="seconds")
    return info.id, written, info.metadata.get("runs", 0), " ".join(tags.get(info.id, [])), info.message


def _tags_of_snapshots(repository: Repository) -> dict[str, list[str]]:
    tags: dict[str, list[str]] = {}
    for tag, snapshot in repository.tags().items():
        tags.setdefault(snapshot, []).append(tag)
    return tags
