"""Import a CSV or Parquet table with one number per option: columns id, answer, logit_A, logit_B, ..., and optional others.

In: a file, and names that it does not contain.  Out: (item set, run) pairs, one per distinct model, method, level, task and prompt.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase
from typing import NamedTuple

import click
import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.errors import UsageError
from schemas.fields import FIELDS
from schemas.items import parse_items
from schemas.itemset import ItemSet, build_item_set
from schemas.options import own_options
from schemas.run import UNKNOWN_TOKEN, FloatArray, Run
from store.command import EXISTING_FILE
from store.importers.importer import Description, Importer, imported_run, in_32_bits, origin_of
from store.importers.table_columns import flags, load_table, numbers, texts
from store.importers.table_values import KINDS, LOGITS, PREFIXES, ROUNDED, recognised, to_logits

log = logging.getLogger(__name__)

OWN_RESULTS = ("correct", "acc", "prediction")
SOME_ROWS = 20  # from here on, logits do not all lie between 0 and 1 by chance
READ = {*FIELDS, "id", "answer", "subject", "demonstration", "logsumexp", "top_token", *OWN_RESULTS}


class Options(NamedTuple):
    """The columns of the options, in order, and the kind of their numbers; None if neither their names nor the user say it."""

    names: list[str]
    kind: str | None


def read_table(file: Path, described: Description, values: str | None = None) -> Iterator[tuple[ItemSet, Run]]:
    """Yield the runs of a table.

    values : kind of the numbers in columns logit_A ..., one of `KINDS`. None means logits, unless every row is clearly a distribution,
             which is then used as such, with a warning.
    Raises UsageError that names the invalid column, row or value.
    """
    table = load_table(file)
    options = _option_columns(table, file, values)
    if unread := [name for name in table.columns if name not in READ and name not in options.names]:
        log.warning("%s: not read: column %s", file.name, ", ".join(name or "without a name" for name in unread))
    named = [_names(table, name, described) for name in FIELDS]
    origin = origin_of("table", file)
    runs = list(table.with_columns(named).group_by(FIELDS, maintain_order=True))
    options = options if options.kind else Options(options.names, _recognise([rows for _, rows in runs], options.names, file))
    for names, rows in runs:
        one = Description(*map(str, names))
        if not one.model or not one.task:
            raise UsageError(f"{file.name} has no column model or task; name them with --model and --task")
        yield _pair(rows, one, options, origin)


def _option_columns(table: pl.DataFrame, path: Path, values: str | None) -> Options:
    columns = {prefix: [name for name in table.columns if name.startswith(prefix)] for prefix in PREFIXES}
    prefixes = [prefix for prefix, names in columns.items() if names] or ["logit_"]
    if len(prefixes) > 1:
        raise UsageError(f"{path.name} has columns {' and '.join(f'{prefix}A' for prefix in prefixes)} ...; leave one kind in")
    [prefix] = prefixes
    expected = [f"{prefix}{letter}" for letter in ascii_uppercase[: max(2, len(columns[prefix]))]]
    if not columns[prefix]:
        raise UsageError(
            f"{path.name} has no number for each option (logit_A, logit_B, ..., or prob_A, logprob_A ...); it has "
            f"{', '.join(table.columns)[:300]}; which option was predicted does not say how sure the model was, and makes no prediction set"
        )
    missing = [name for name in ("id", "answer", *expected) if name not in table.columns]
    if missing:
        raise UsageError(f"{path.name} lacks column {', '.join(missing)}; it has {', '.join(table.columns)[:300]}")
    kind = None if prefix == "logit_" else PREFIXES[prefix]
    if values and kind and values != kind:
        raise UsageError(f"{path.name}: columns {prefix}A ... hold {kind}, not {values}; leave --values out")
    return Options(expected, values or kind)


def _recognise(runs: Sequence[pl.DataFrame], names: list[str], path: Path) -> str:
    """Return the kind of the numbers of all runs if it is not given. Raises UsageError if it is not the same for all runs."""
    kinds = {recognised(numbers(rows, names), _is_given(rows, names).sum(axis=1)) for rows in runs}
    if len(kinds) > 1:
        raise UsageError(f"{path.name}: some runs look like {' and some like '.join(sorted(kinds))}; say with --values what they all are")
    [kind] = kinds
    if kind == LOGITS and (number := sum(map(len, runs))) >= SOME_ROWS and _within_one(runs, names):
        raise UsageError(
            f"{path.name}: all numbers of {number} rows lie between 0 and 1, as probabilities among a whole vocabulary do; say --values "
            "probabilities, or --values logits"
        )
    if kind != LOGITS:
        log.warning("%s: the numbers of every row are %s, and taken as such; if they are logits, say --values %s", path.name, kind, LOGITS)
    return kind


def _within_one(runs: Sequence[pl.DataFrame], names: list[str]) -> bool:
    every = np.concatenate([numbers(rows, names) for rows in runs])
    return bool(np.nanmin(every) >= 0 and np.nanmax(every) <= 1 + ROUNDED)


def _is_given(rows: pl.DataFrame, names: list[str]) -> NDArray[np.bool_]:
    return ~np.column_stack([rows[name].is_null().to_numpy() for name in names])


def _names(table: pl.DataFrame, name: str, described: Description) -> pl.Series:
    """Return one of the columns that name runs; an empty level means a dense run, any other empty name is an error."""
    if name not in table.columns:
        return pl.Series(name, [getattr(described, name)]).extend_constant(getattr(described, name), len(table) - 1)
    return texts(table, name, optional=name == "level").alias(name)


def _pair(rows: pl.DataFrame, named: Description, options: Options, origin: str) -> tuple[ItemSet, Run]:
    has_value = _is_given(rows, options.names)
    n_options = has_value.sum(axis=1)
    if np.any(has_value != own_options(n_options, has_value.shape[1])) or n_options.min() < 2:
        raise UsageError(f"{named.task}: an item has fewer than two logits, or a gap among them")
    items = _items(rows, named.task, n_options, origin)
    if np.any(items.answer >= n_options):
        raise UsageError(f"{named.task}: an answer is an option without a logit")
    kind, where = options.kind or LOGITS, " ".join((named.model, named.method, named.level, named.task))
    if fewer := int((n_options < n_options.max()).sum()):
        log.warning("%s: %d of %d items have empty cells, taken as options that they do not have", where, fewer, len(n_options))
    logits = to_logits(numbers(rows, options.names)[:, : int(n_options.max())], kind, where)
    _check_own_result(rows, items, logits)
    run = imported_run(named, items, in_32_bits(logits, where), origin if kind == LOGITS else f"{origin}, {kind}")
    return items, replace(run, logsumexp=_logsumexp(rows, run), top_token=_top_token(rows, run))


def _items(rows: pl.DataFrame, task: str, n_options: NDArray[np.int_], origin: str) -> ItemSet:
    names = [name for name in ("id", "answer", "subject") if name in rows.columns]
    columns = {name: texts(rows, name, optional=name == "subject").to_list() for name in names}
    items = parse_items(({**dict(zip(columns, row, strict=True)), "source": task} for row in zip(*columns.values(), strict=True)), task)
    marked = flags(rows, "demonstration") if "demonstration" in rows.columns else np.zeros(len(items), dtype=np.bool_)
    demonstrations = {item.id for item, shown in zip(items, marked, strict=True) if shown}
    return build_item_set(task, items, revision=origin, demonstrations=demonstrations, n_options=n_options.tolist())


def _check_own_result(rows: pl.DataFrame, items: ItemSet, logits: NDArray[np.float64]) -> None:
    """Compare with the table's own predictions; of equal logits either may be meant. Raises UsageError naming the first that disagrees."""
    best = logits == np.nanmax(logits, axis=1, keepdims=True)
    every = np.arange(len(items))
    can_be_right, can_be_wrong = best[every, items.answer], best.sum(axis=1) > best[every, items.answer]
    for name in (name for name in OWN_RESULTS if name in rows.columns):
        stated = texts(rows, name, optional=True)
        if name == "prediction":
            predicted = [ascii_uppercase.find(text) if len(text) == 1 else -1 for text in stated.to_list()]
            agrees = np.array([0 <= option < best.shape[1] and best[row, option] for row, option in enumerate(predicted)])
        else:
            agrees = np.where(flags(rows, name), can_be_right, can_be_wrong)
        agrees |= (stated == "").to_numpy()
        if not agrees.all():
            row = int(np.argmin(agrees))
            largest, answer = ascii_uppercase[int(np.argmax(best[row]))], ascii_uppercase[items.answer[row]]
            raise UsageError(
                f"{items.task}: item {texts(rows, 'id')[row]!r}: the largest logit is that of {largest}, the answer {answer}, but column "
                f"{name} says {stated[row]}"
            )


def _logsumexp(rows: pl.DataFrame, run: Run) -> FloatArray:
    return numbers(rows, ["logsumexp"])[:, 0].astype(np.float32) if "logsumexp" in rows.columns else run.logsumexp


def _top_token(rows: pl.DataFrame, run: Run) -> NDArray[np.int32]:
    if "top_token" not in rows.columns:
        return run.top_token
    stated = numbers(rows, ["top_token"])[:, 0]
    token = np.where(np.isnan(stated), UNKNOWN_TOKEN, stated)
    odd = token[(token < UNKNOWN_TOKEN) | (token > np.iinfo(np.int32).max) | (token != np.trunc(token))]
    if len(odd):
        raise UsageError(f"column top_token holds {odd[0]:.10g}; expected token ids, which are whole numbers from 0 (or {UNKNOWN_TOKEN})")
    return token.astype(np.int32)


IMPORTER = Importer(
    read=read_table,
    help="""Import a CSV or Parquet table with columns id, answer, logit_A, logit_B, ... (or prob_A, logprob_A, ...).

    Example: store import table --model my-model --task mmlu logits.csv
    """,
    parameters=[
        click.Argument(["file"], type=EXISTING_FILE),
        click.Option(
            ["--values"],
            type=click.Choice(KINDS),
            help="What the columns logit_A ... hold. [logits, unless every row is plainly something else, which is then said]",
        ),
    ],
    described=True,
)
