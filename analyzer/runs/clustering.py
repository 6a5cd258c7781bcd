"""`--cluster`: which items depend on each other, and so count as one unit in every interval, test and verdict.

In: the text of the option, or a mapping from item ids to clusters.  Out: the number of each item's cluster.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analyzer.stats.arrays import IntArray
from schemas.errors import UsageError
from schemas.itemset import ItemSet
from store.importers.table_columns import load_table, texts

QUESTION, ITEM, SUBJECT, CONTEXT, GIVEN = "question", "item", "subject", "context", "given"
FORMS = f"{QUESTION}, {ITEM}, {SUBJECT}, {CONTEXT}, or FILE:COLUMN with the ids in a column id"


@dataclass(frozen=True)
class Clustering:
    """How items form clusters.

    text  : `question` (the default: items that ask the same question), `item` (every item by itself), `subject`, `context` (items about
            the same passage), or `FILE:COLUMN`; `given` for a mapping. Each item by itself is right where items are drawn independently
            with replacement, as a generator draws them: a question that is drawn twice is then two draws.
    by_id : cluster by the item's original id, or its item_id in decimal, for the last two; with a column `task`, by task and id.
    """

    text: str = QUESTION
    by_id: Mapping[tuple[str | None, str], str] | None = None


BY_QUESTION = Clustering()


def parse_clustering(clustering: str | Mapping[str, str]) -> Clustering:
    """Return the clustering that a text or a mapping from ids to clusters describes; clusters are texts, so 0001 is not 1.

    A file is CSV or Parquet with a column `id` and one row per item; a column `task` tells equal ids of several tasks apart. Raises
    UsageError for anything else, an empty cell, or an id with two clusters.
    """
    if isinstance(clustering, Mapping):
        return Clustering(GIVEN, {(None, str(name)): _text(cluster, str(name)) for name, cluster in clustering.items()})
    if clustering in (QUESTION, ITEM, SUBJECT, CONTEXT):
        return Clustering(clustering)
    path, colon, column = clustering.rpartition(":")
    if not colon or not path or not column:
        raise UsageError(f"cluster {clustering[:80]!r} is not known; expected {FORMS}")
    return Clustering(clustering, _read_column(Path(path), column))


def cluster_numbers(items: ItemSet, clustering: Clustering) -> IntArray:
    """Return (item,) the number of each item's cluster, from 0; demonstrations, which no analysis uses, need no cluster of their own.

    Raises UsageError for items without subjects or texts where these are needed, and for an item without a cluster.
    """
    if clustering.by_id is not None:
        return _by_id(items, clustering)
    if clustering.text == ITEM:
        return np.arange(items.item_id.size)
    if clustering.text == SUBJECT:
        if not any(items.subjects):
            raise UsageError(f"items of task {items.task} have no subject; --cluster {SUBJECT} needs one")
        return items.subject.astype(np.int64)
    if clustering.text == CONTEXT:
        if not items.texts:
            raise UsageError(f"items of task {items.task} are stored without their texts, which --cluster {CONTEXT} needs; use FILE:COLUMN")
        return items.passage
    return items.question


def _by_id(items: ItemSet, clustering: Clustering) -> IntArray:
    known = clustering.by_id or {}
    by_name, by_number = items.original_ids, [str(one) for one in items.item_id.tolist()]
    lookups = [_lookup(known, items.task, ids) for ids in (by_name, by_number)]
    in_use = ~items.demonstration
    chosen = max(lookups, key=lambda clusters: sum(cluster is not None for cluster in clusters))
    if missing := [name for name, cluster, used in zip(by_name, chosen, in_use, strict=True) if used and cluster is None]:
        raise UsageError(
            f"cluster {clustering.text[:80]!r} names no cluster for {len(missing)} of the {int(in_use.sum())} items of task {items.task}, "
            f"such as id {missing[0][:80]!r}; every item needs one"
        )
    return np.unique(["" if cluster is None else cluster for cluster in chosen], return_inverse=True)[1].reshape(-1)


def _lookup(known: Mapping[tuple[str | None, str], str], task: str, ids: list[str] | tuple[str, ...]) -> list[str | None]:
    return [known.get((task, one), known.get((None, one))) for one in ids]


def _read_column(path: Path, column: str) -> dict[tuple[str | None, str], str]:
    if not path.is_file():
        raise UsageError(f"cannot read clusters from {path}: there is no such file; expected {FORMS}")
    table = load_table(path)
    if missing := [name for name in ("id", column) if name not in table.columns]:
        raise UsageError(f"{path.name} has no column {missing[0]!r}; it has: {', '.join(table.columns)[:160]}")
    tasks = texts(table, "task").to_list() if "task" in table.columns and column != "task" else [None] * len(table)
    clusters: dict[tuple[str | None, str], str] = {}
    for task, name, cluster in zip(tasks, texts(table, "id"), texts(table, column), strict=True):
        if clusters.setdefault((task, name), _text(cluster, name)) != cluster:
            raise UsageError(f"{path.name} puts id {name[:80]!r} into two clusters, {clusters[task, name][:80]!r} and {cluster[:80]!r}")
    return clusters


def _text(cluster: object, name: str) -> str:
    """A cluster as text. A missing value is no cluster, since all items without one would else depend on each other."""
    missing = cluster is None or (isinstance(cluster, float) and np.isnan(cluster)) or str(cluster).strip().lower() in ("", "nan")
    if missing:
        raise UsageError(f"item {name[:80]!r} has cluster {cluster!r}; every item needs one")
    return str(cluster)
