"""The history of a store: its commits, and what changed from one to another.

In: a store's address, tags or snapshot ids.  Out: tables.
"""

from collections.abc import Mapping
from datetime import datetime
from heapq import merge
from typing import Any

import numpy as np
import polars as pl

from schemas.run import Run
from store.backend.failures import readable
from store.reading.reader import open_reader
from store.repository.commits import commits
from store.repository.repository import Repository, open_repository

LOG_SCHEMA = dict.fromkeys(("snapshot", "written", "runs", "tags", "author", "message", "note"), pl.String) | {"runs": pl.Int64}
DIFF_SCHEMA = {"change": pl.String, "name": pl.String, "items_changed": pl.Int64, "largest_logit_change": pl.Float64}


def history(url: str, at: str | None = None) -> pl.DataFrame:
    """Return the commits that lead to a snapshot, newest first; `runs` is the number of runs that a commit wrote.

    Without `at`, snapshots that only a tag leads to, such as those of copied tags, are listed too.
    """
    repository = open_repository(url)
    snapshot, _ = repository.keys(at)
    with readable(repository.address):
        tags = _tags_by_snapshot(repository)
        listed = list(commits(repository, snapshot))
        beside = sorted(set(tags) - {info.id for info in listed}) if at is None else []
        others = sorted((next(commits(repository, tagged)) for tagged in beside), key=_written, reverse=True)
        rows = [_row(info, tags) for info in merge(listed, others, key=_written, reverse=True)]
    return pl.DataFrame(rows, schema=LOG_SCHEMA, orient="row")


def diff_snapshots(url: str, before: str, after: str | None = None) -> pl.DataFrame:
    """Return the runs added, removed and replaced between two tags or snapshots, by default up to the newest snapshot.

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


def _change(old: Run, new: Run) -> tuple[int, float | None]:
    difference = np.abs(old.logits.astype(np.float64) - new.logits.astype(np.float64))
    same = (old.logits == new.logits) | (np.isnan(old.logits) & np.isnan(new.logits))
    finite = difference[np.isfinite(difference)]
    return int(np.any(~same, axis=1).sum()), float(finite.max()) if finite.size else None


def _written(info: Any) -> datetime:
    moment: datetime = info.written_at
    return moment


def _row(info: Any, tags: Mapping[str, list[str]]) -> tuple[Any, ...]:
    written = info.written_at.isoformat(timespec="seconds")
    author, note = (str(info.metadata.get(name, "")) for name in ("author", "note"))
    return info.id, written, info.metadata.get("runs", 0), " ".join(tags.get(info.id, [])), author, info.message, note


def _tags_by_snapshot(repository: Repository) -> dict[str, list[str]]:
    """Return the tags of each snapshot that was tagged."""
    tags: dict[str, list[str]] = {}
    for tag, snapshot in repository.tags().items():
        tags.setdefault(repository.tagged(snapshot), []).append(tag)
    return tags
