"""Describe a store or one of its runs as a nested record, for `store show`.

In: a store's address, and for a run its name or the beginning of it.  Out: a record to print.
"""

from typing import Any

from schemas.errors import RunNotFoundError, UsageError
from schemas.fields import FIELDS
from schemas.run import nonfinite_items
from store.format.root import stored_schema
from store.reading.catalog import run_names
from store.reading.reader import Reader, open_reader


def describe_store(url: str, at: str | None = None) -> dict[str, Any]:
    """Return a store's address, snapshot, schema version, and numbers of runs, models, methods, levels, tasks, prompts and item sets."""
    reader = open_reader(url, at)
    catalog = reader.catalog
    counts = {f"{column}s": catalog[column].n_unique() for column in FIELDS}
    counts = {"runs": len(catalog), **counts, "item_sets": catalog["items_hash"].n_unique()}
    return {"store": url, "snapshot": reader.snapshot, "schema": stored_schema(reader.keys), **counts}


def describe_run(url: str, name: str, at: str | None = None) -> dict[str, Any]:
    """Return everything recorded with a run, after verifying its arrays. `name` may be the beginning of a unique name."""
    reader = open_reader(url, at)
    name = complete_name(reader, name)
    run = reader.run(name)
    items = reader.items(run.key.items_hash)
    return {
        "name": name,
        "snapshot": reader.snapshot,
        "digest": run.digest,
        "items": len(items),
        "options": run.logits.shape[1],
        "nonfinite": nonfinite_items(run.logits, items.n_options),
        "key": run.key.model_dump(mode="json"),
        "env": run.env.model_dump(mode="json"),
    }


def complete_name(reader: Reader, start: str) -> str:
    """Return the name of the one run that begins so. Raises UsageError for several, RunNotFoundError for none."""
    names = run_names(reader.keys)
    matches = [start] if start in names else [name for name in names if name.startswith(start)]
    if len(matches) > 1:
        raise UsageError(f"{len(matches)} runs begin with {start!r}: {', '.join(matches[:3])}; give one name in full")
    if not matches:
        raise RunNotFoundError(f"no run {start!r} in {reader.url} at {reader.snapshot}.{reader.hint(start)}")
    return matches[0]
