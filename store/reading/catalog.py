"""The catalog of a snapshot: a table with one row per run, read once from the runs' attributes and then kept in the user's cache folder.

In: `Keys` and a snapshot id, or a store's address alone.  Out: a polars table sorted by name, or its rows that match filters. A cached copy
is used only if its SHA-256, over its content and the name of its file, is right: otherwise one flipped bit could give a run another level
or another run's items, and a copied file another snapshot's runs. No part of this needs Icechunk, so that listing a store whose catalog is
cached is fast.
"""

import io
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl

from schemas.errors import StoreInvalidError
from schemas.fields import KEY_COLUMNS
from schemas.layout import MAX_NAME_LENGTH, RUNS
from store.backend.address import parse_address
from store.backend.ref_files import read_reference
from store.backend.user_cache import cache_folder, warn_once
from store.format.keys import Keys
from store.format.polars_files import read_polars
from store.format.runs import RunRecord, parse_run_record
from store.reading.selection import Selection, matching_rows, name_models_apart

SCHEMA = {
    "name": pl.String,
    **dict.fromkeys(KEY_COLUMNS, pl.String),
    "seed": pl.Int64,
    "n_items": pl.Int64,
    "origin": pl.String,
    "parameters": pl.Int64,
    "truncated_items": pl.Int64,
    "dropped_items": pl.Int64,
    "created": pl.String,
    "duration_s": pl.Float64,
    "digest": pl.String,
    "nonfinite": pl.Int64,
    "n_tokens": pl.Int64,
}
DIGEST_BYTES = 32  # length of the SHA-256 that stands before a cached catalog
MOST_CATALOGS = 64  # number of catalogs in the cache; the oldest are deleted


def read_catalog(keys: Keys, snapshot: str) -> pl.DataFrame:
    """Return the catalog of a snapshot, from the cache if it is there and names all runs of the snapshot and no others."""
    path = cache_path(keys.where, snapshot)
    cached = load_cached(path)
    if cached is not None and cached["name"].to_list() == run_names(keys):
        return cached
    table = build_catalog(keys)
    keep_cached(table, path)
    return table


def cached_newest(url: str) -> pl.DataFrame | None:
    """Return the catalog of a local store's newest snapshot if it is cached, without opening the store."""
    path = parse_address(url).path
    snapshot = read_reference(path / "refs" / "branch.main") if path else None
    return load_cached(cache_path(url, snapshot)) if snapshot else None


def select_runs(catalog: pl.DataFrame, selection: Selection, where: str) -> pl.DataFrame:
    """Return the rows of a catalog that match, selected as all `analyze` commands do.

    selection : field (model, method, level, task, prompt) -> accepted values; an empty list accepts all.
    where     : name of the catalog in messages.
    Raises RunNotFoundError, which lists the values that exist.
    """
    named = name_models_apart(catalog.to_dicts(), selection)
    return pl.DataFrame(matching_rows(named.rows, named.selection, where), schema=SCHEMA)


def build_catalog(keys: Keys) -> pl.DataFrame:
    """Return the catalog, read from every run's attributes. Raises StoreInvalidError that names the first damaged run."""
    return pl.DataFrame([catalog_row(name, record) for name, record in read_records(keys).items()], schema=SCHEMA, orient="row")


def read_records(keys: Keys, names: Sequence[str] | None = None) -> dict[str, RunRecord]:
    """Return the record of every run, or of some, by name. Raises StoreInvalidError for a damaged one and for a name that is not there."""
    names = run_names(keys) if names is None else names
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
    values = {**dict(record.key), **dict(record.env), **vars(record), "settings_hash": record.key.settings_hash, "name": name}
    return tuple(values[column] for column in SCHEMA)


def cache_path(where: str, snapshot: str) -> Path:
    """Return the cache file of a snapshot's catalog; it depends on the address too, since two stores may have the same snapshot id."""
    return cache_folder("catalog") / f"{sha256(f'{os.path.abspath(where)} {snapshot}'.encode()).hexdigest()}.catalog"


def load_cached(path: Path) -> pl.DataFrame | None:
    """Return a cached catalog, or None if it is absent, has other columns, or was changed since it was written."""
    try:
        stored = path.read_bytes()
        digest, content = stored[:DIGEST_BYTES], stored[DIGEST_BYTES:]
        table = read_polars(pl.read_parquet, io.BytesIO(content)) if _digest(path, content) == digest else None
    except (OSError, ValueError):
        return None
    return table if table is not None and table.schema == pl.Schema(SCHEMA) else None


def keep_cached(table: pl.DataFrame, path: Path) -> None:
    """Write the cache file, its SHA-256 first, completely or not at all; warn if the cache cannot be written."""
    packed = io.BytesIO()
    table.write_parquet(packed)
    partial = path.with_suffix(f".{uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(_digest(path, packed.getbuffer()) + packed.getbuffer())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        for old in sorted(path.parent.glob("*.catalog"), key=lambda file: file.stat().st_mtime)[:-MOST_CATALOGS]:
            old.unlink(missing_ok=True)
    except OSError as error:
        warn_once(error)


def _digest(path: Path, content: bytes | memoryview) -> bytes:
    """Return the SHA-256 of a cached catalog and of the name of its file, which stands for the store's address and the snapshot."""
    digest = sha256(path.name.encode())
    digest.update(content)
    return digest.digest()
