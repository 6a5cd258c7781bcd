"""The catalog: one row per run of a snapshot, read once and kept in the user's cache folder.

In: `Keys` and a snapshot id.  Out: a polars table sorted by name. The cache may be lost or broken at any time.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl

from schemas.errors import RunNotFoundError, StoreInvalidError
from schemas.layout import MAX_NAME_LENGTH, RUNS
from store.cache import cache_folder
from store.keys import Keys
from store.runs import RunRecord, parse_run_record

log = logging.getLogger(__name__)

SCHEMA = {
    "name": pl.String,
    "model": pl.String,
    "method": pl.String,
    "level": pl.String,
    "task": pl.String,
    "prompt": pl.String,
    "items_hash": pl.String,
    "dtype": pl.String,
    "backend": pl.String,
    "seed": pl.Int64,
    "n_items": pl.Int64,
    "origin": pl.String,
    "parameters": pl.Int64,
    "created": pl.String,
    "duration_s": pl.Float64,
    "digest": pl.String,
    "nonfinite": pl.Int64,
}
SHOWN = 20  # values listed in a message
KEPT = 64  # cached catalogs; a snapshot that is asked for again is read again


def read_catalog(keys: Keys, snapshot: str) -> pl.DataFrame:
    """Return the catalog of a snapshot, from the cache where it is there."""
    path = cache_folder("catalog") / f"{sha256(f'{os.path.abspath(keys.where)} {snapshot}'.encode()).hexdigest()}.parquet"
    cached = _load(path)
    if cached is not None:
        return cached
    table = build_catalog(keys)
    _keep(table, path)
    return table


def build_catalog(keys: Keys) -> pl.DataFrame:
    """Return the catalog, read from every run's attributes. Raises StoreInvalidError naming the first run that is damaged."""
    return pl.DataFrame([_row(name, record) for name, record in read_records(keys).items()], schema=SCHEMA, orient="row")


def select_runs(catalog: pl.DataFrame, filters: Mapping[str, Sequence[str]]) -> pl.DataFrame:
    """Return the rows whose columns hold one of the wanted values; an empty filter wants all.

    Raises RunNotFoundError listing the values there are, where one that is wanted is not among them.
    """
    for column, wanted in filters.items():
        there = catalog[column].unique().sort().to_list()
        if missing := [value for value in wanted if value not in there]:
            raise RunNotFoundError(f"no run has {column} {missing[0]!r}; there is: {', '.join(there[:SHOWN]) or 'nothing'}")
        if wanted:
            catalog = catalog.filter(pl.col(column).is_in(list(wanted)))
    return catalog


def read_records(keys: Keys) -> dict[str, RunRecord]:
    """Return the record of every run by name."""
    names = run_names(keys)
    stored = keys.get_many([f"{RUNS}/{name}/zarr.json" for name in names])
    return {name: parse_run_record(value, name, keys.where) for name, value in zip(names, stored, strict=True)}


def run_names(keys: Keys) -> list[str]:
    """Return the names of all runs. Raises StoreInvalidError for a name that is none."""
    names = keys.children(RUNS)
    for name in names:
        if len(name) > MAX_NAME_LENGTH or name.startswith(".") or not name.isprintable() or "/" in name or "\\" in name:
            raise StoreInvalidError(f"store {keys.where}: {name[:60]!r} is not the name of a run")
    return names


def _row(name: str, record: RunRecord) -> tuple[Any, ...]:
    values = {**dict(record.key), **dict(record.env), **vars(record), "name": name}
    return tuple(values[column] for column in SCHEMA)


def _load(path: Path) -> pl.DataFrame | None:
    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError):
        return None
    return table if table.schema == pl.Schema(SCHEMA) else None


def _keep(table: pl.DataFrame, path: Path) -> None:
    """Write the cache file whole or not at all; a cache that cannot be written is only slow."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{uuid4().hex}")
        table.write_parquet(partial)
        partial.replace(path)
        for old in sorted(path.parent.glob("*.parquet"), key=lambda file: file.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        log.debug("catalog not cached: %s", error)
