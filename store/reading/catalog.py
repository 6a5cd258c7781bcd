"""The catalog of a snapshot: a table with one row per run, read once from the runs' attributes and then kept in the user's cache folder.

In: `Keys` and a snapshot id.  Out: a polars table sorted by name.
"""

from typing import Any

import polars as pl

from schemas.errors import StoreInvalidError
from schemas.layout import MAX_NAME_LENGTH, RUNS
from store.format.keys import Keys
from store.format.runs import RunRecord, parse_run_record
from store.reading.catalog_table import SCHEMA, cache_path, keep_cached, load_cached


def read_catalog(keys: Keys, snapshot: str) -> pl.DataFrame:
    """Return the catalog of a snapshot, from the cache if it is there and names all runs of the snapshot and no others."""
    path = cache_path(keys.where, snapshot)
    cached = load_cached(path)
    if cached is not None and cached["name"].to_list() == run_names(keys):
        return cached
    table = build_catalog(keys)
    keep_cached(table, path)
    return table


def build_catalog(keys: Keys) -> pl.DataFrame:
    """Return the catalog, read from every run's attributes. Raises StoreInvalidError that names the first damaged run."""
    return pl.DataFrame([catalog_row(name, record) for name, record in read_records(keys).items()], schema=SCHEMA, orient="row")


def read_records(keys: Keys) -> dict[str, RunRecord]:
    """Return the record of every run by name."""
    names = run_names(keys)
    stored = keys.get_many([f"{RUNS}/{name}/zarr.json" for name in names])
    return {name: parse_run_record(value, name, keys.where) for name, value in zip(names, stored, strict=True)}


def run_names(keys: Keys) -> list[str]:
    """Return the names of all runs. Raises StoreInvalidError for a name that a run cannot have."""
    names = keys.children(RUNS)
    for name in names:
        if len(name) > MAX_NAME_LENGTH or name.startswith(".") or not name.isprintable() or "/" in name or "\\" in name:
            raise StoreInvalidError(f"store {keys.where}: {name[:60]!r} is not the name of a run")
    return names


def catalog_row(name: str, record: RunRecord) -> tuple[Any, ...]:
    """Return the row of a run, from what its own attributes say."""
    values = {**dict(record.key), **dict(record.env), **vars(record), "name": name}
    return tuple(values[column] for column in SCHEMA)
