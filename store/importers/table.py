"""Import a CSV or Parquet table of per-option logits: columns id, answer, logit_A, logit_B, ...; further ones are optional.

In: a file and names for what it does not say.  Out: (item set, run) pairs, one per distinct model, method, level, task and prompt.
"""

from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase

import click
import numpy as np
import polars as pl

from schemas.errors import UsageError
from schemas.items import parse_items
from schemas.itemset import ItemSet, build_item_set
from schemas.run import FloatArray, Run
from store.exchange.parquet_file import RUN_COLUMNS
from store.importers.importer import FILE, Description, Importer, imported_run, origin_of


def read_table(file: Path, described: Description) -> Iterator[tuple[ItemSet, Run]]:
    """Yield the runs of a table. Raises UsageError naming the column or value that is not as it should be."""
    table = _load(file)
    if table.is_empty():
        raise UsageError(f"{file.name} has a header and no rows")
    letters = _letters(table, file)
    for name in RUN_COLUMNS:
        if name not in table.columns:
            table = table.with_columns(pl.lit(getattr(described, name)).alias(name))
    origin = origin_of("table", file)
    for names, rows in table.group_by(RUN_COLUMNS, maintain_order=True):
        named = Description(*map(str, names))
        if not named.model or not named.task:
            raise UsageError(f"{file.name} has no column model or task; name them with --model and --task")
        items, logits = _items(rows, named.task, letters, origin)
        yield items, imported_run(named, items, logits, origin)


def _load(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UsageError(f"{path.name} is not a CSV or Parquet table: {str(error).splitlines()[0][:160]}") from error


def _letters(table: pl.DataFrame, path: Path) -> list[str]:
    letters = [letter for letter in ascii_uppercase if f"logit_{letter}" in table.columns]
    missing = [name for name in ("id", "answer", "logit_A", "logit_B") if name not in table.columns]
    if missing or letters != list(ascii_uppercase[: len(letters)]):
        lacking = ", ".join(missing) or f"logit_{ascii_uppercase[len(letters) - 1]}"
        raise UsageError(f"{path.name} lacks column {lacking}; it has {', '.join(table.columns)}")
    return letters


def _items(rows: pl.DataFrame, task: str, letters: list[str], origin: str) -> tuple[ItemSet, FloatArray]:
    try:
        options = rows.select(pl.col(f"logit_{letter}").cast(pl.Float64) for letter in letters)
    except pl.exceptions.PolarsError as error:
        raise UsageError(f"{task}: a logit is not a number: {str(error).splitlines()[0][:160]}") from error
    given = ~np.column_stack([column.is_null().to_numpy() for column in options])
    n_options = given.sum(axis=1).astype(np.int16)
    if np.any(given != (np.arange(len(letters)) < n_options[:, None])) or n_options.min() < 2:
        raise UsageError(f"{task}: an item has fewer than two logits, or a gap among them")
    columns = [name for name in ("id", "answer", "subject") if name in rows.columns]
    texts = rows.select(pl.col(columns).cast(pl.String).fill_null(""))
    items = parse_items(({**row, "source": task} for row in texts.iter_rows(named=True)), task)
    demonstrations = set(texts["id"].filter(rows["demonstration"])) if "demonstration" in rows.columns else ()
    item_set = build_item_set(task, items, revision=origin, demonstrations=demonstrations, n_options=n_options.tolist())
    if np.any(item_set.answer >= n_options):
        raise UsageError(f"{task}: an answer is an option without a logit")
    return item_set, options.to_numpy()[:, : int(n_options.max())].astype(np.float32)


IMPORTER = Importer(
    read=read_table,
    help="""Import a CSV or Parquet table with columns id, answer, logit_A, logit_B, ...

    Example: store import table --model my-model --task mmlu logits.csv
    """,
    parameters=[click.Argument(["file"], type=FILE)],
    described=True,
)
