"""Export runs as a flat Parquet table, one row per run and item, which needs no Zarr to read and which `store import table` reads back.

In: keys.  Out: a Parquet file with columns model, method, level, task, prompt, id, answer, subject, demonstration, logit_A, logit_B,
..., logsumexp, top_token. The logit of an option that an item does not have is null. Runs over a text are left out: they have no options.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from schemas.errors import HedgemarkError
from schemas.fields import FIELDS
from schemas.itemset import ItemSet
from schemas.run import Run
from store.exchange.whole_file import whole_file
from store.format.item_sets import read_items
from store.format.keys import Keys
from store.format.runs import check_fit, read_run
from store.reading.catalog import read_records
from store.shown import counted

log = logging.getLogger(__name__)


def write_parquet(keys: Keys, path: Path) -> int:
    """Write every run over items of a snapshot to a Parquet file and return their number; only one run is in memory at a time."""
    all_records = read_records(keys)
    records = {name: record for name, record in all_records.items() if not record.n_tokens}
    if left_out := len(all_records) - len(records):
        log.warning("%s over a text left out, since the table has a row for each item; a .zip has them", counted(left_out, "run"))
    schema = _schema(max((record.n_options for record in records.values()), default=1))

    def frames(*_: object) -> Iterator[pl.DataFrame]:
        items: dict[str, ItemSet] = {}
        for name, record in records.items():
            items_hash = record.key.items_hash
            if items_hash not in items:
                items = {items_hash: read_items(keys, items_hash)}
            run = read_run(keys, name, record)
            check_fit(run, items[items_hash], f"store {keys.where}")
            yield run_frame(run, items[items_hash], schema)

    with whole_file(path) as partial:
        try:
            register_io_source(frames, schema=schema).sink_parquet(partial, compression="zstd")
        except pl.exceptions.ComputeError as error:  # so polars calls a full disk, too; what a frame raises comes through as it is
            raise HedgemarkError(f"{path} cannot be written: {str(error)[:200]}") from error
    return len(records)


def run_frame(run: Run, items: ItemSet, schema: pl.Schema) -> pl.DataFrame:
    """Return one run as a table with one row per item."""
    letters = np.array(list(ascii_uppercase))
    columns = {name: [getattr(run.key, name)] * len(items) for name in FIELDS}
    subjects = [items.subjects[one] for one in items.subject]
    columns |= {"id": list(items.original_ids), "answer": letters[items.answer].tolist(), "subject": subjects}
    frame = pl.DataFrame({**columns, "demonstration": items.demonstration, "logsumexp": run.logsumexp, "top_token": run.top_token})
    logits = [
        pl.Series(name, run.logits[:, option]).set(pl.Series(items.n_options <= option), None)
        if option < run.logits.shape[1]
        else pl.lit(None, pl.Float32).alias(name)
        for option, name in enumerate(name for name in schema if name.startswith("logit_"))
    ]
    return frame.with_columns(logits).select(schema.names()).cast(schema)


def _schema(n_options: int) -> pl.Schema:
    text = {name: pl.String for name in (*FIELDS, "id", "answer", "subject")}
    logits = {f"logit_{letter}": pl.Float32 for letter in ascii_uppercase[:n_options]}
    return pl.Schema({**text, "demonstration": pl.Boolean, **logits, "logsumexp": pl.Float32, "top_token": pl.Int32})
