"""The catalog as a table: its columns, its filters, and the copy kept in the user's cache folder.

In: a store's address and a snapshot id, or a table and filters.  Out: a polars table. This file imports neither Icechunk nor Zarr, so
that listing a store whose catalog is cached costs no more than polars does.
"""

import io
import logging
import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import polars as pl

from schemas.errors import RunNotFoundError
from store.backend.address import parse_address
from store.backend.ref_files import read_reference
from store.backend.user_cache import cache_folder
from store.format.polars_files import read_polars

log = logging.getLogger(__name__)

SCHEMA = {
    "name": pl.String,
    "model": pl.String,
    "method": pl.String,
    "level": pl.String,
    "task": pl.String,
    "prompt": pl.String,
    "items_hash": pl.String,
    "weights_hash": pl.String,
    "tokens_hash": pl.String,
    "dtype": pl.String,
    "backend": pl.String,
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
}
DIGEST_BYTES = 32  # SHA-256 of what follows, in front of a cached catalog
SHOWN = 20  # values listed in a message
KEPT = 64  # cached catalogs; a snapshot that is asked for again is read again



def cached_newest(url: str) -> pl.DataFrame | None:
    """Return the catalog of a local store's newest snapshot if it is cached, without opening the store."""
    path = parse_address(url).path
    snapshot = read_reference(path / "refs" / "branch.main") if path else None
    return load_cached(cache_path(url, snapshot)) if snapshot else None


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


def cache_path(where: str, snapshot: str) -> Path:
    """Return where the catalog of a snapshot is cached; two stores may share a snapshot id, not an address."""
    return cache_folder("catalog") / f"{sha256(f'{os.path.abspath(where)} {snapshot}'.encode()).hexdigest()}.catalog"


def load_cached(path: Path) -> pl.DataFrame | None:
    """Return a cached catalog, None where it is absent, of other columns, or not byte for byte what was written: then it is read anew."""
    try:
        stored = path.read_bytes()
        digest, content = stored[:DIGEST_BYTES], stored[DIGEST_BYTES:]
        table = read_polars(pl.read_parquet, io.BytesIO(content)) if sha256(content).digest() == digest else None
    except (OSError, ValueError):
        return None
    return table if table is not None and table.schema == pl.Schema(SCHEMA) else None


def keep_cached(table: pl.DataFrame, path: Path) -> None:
    """Write the cache file whole or not at all; a cache that cannot be written is only slow."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        table.write_parquet(content)
        partial = path.with_suffix(f".{uuid4().hex}")
        partial.write_bytes(sha256(content.getvalue()).digest() + content.getvalue())
        partial.replace(path)
        for old in sorted(path.parent.glob("*.catalog"), key=lambda file: file.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        log.debug("catalog not cached: %s", error)
