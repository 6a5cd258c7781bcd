"""Import lighteval's details of multiple-choice tasks: Parquet files with the columns doc, model_response and metric.

In: details files.  Out: one run per file, or with a task name one run of all, a subject for each. The log-likelihood of a choice takes the
place of an option's logit. A row's own `acc` is checked: it must be 1 where the likeliest choice is the answer, else 0.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from schemas.errors import UsageError
from schemas.items import MAX_OPTIONS, parse_items
from schemas.itemset import ItemSet, build_item_set
from schemas.run import Run
from store.command import EXISTING_FILE
from store.importers.importer import Description, Importer, imported_run, in_32_bits, origin_of
from store.importers.table_columns import load_table

log = logging.getLogger(__name__)

COLUMNS = ("doc", "metric", "model_response")
ACC = "acc"


class _File(NamedTuple):
    """One details file: its task, its rows as items, and the log-likelihoods of each row's choices."""

    path: Path
    task: str
    rows: list[dict[str, Any]]
    likelihoods: list[NDArray[np.float64]]


def read_lighteval(files: Sequence[Path], described: Description) -> Iterator[tuple[ItemSet, Run]]:
    """Yield one run per details file; if a task is given, all files become one run, with a subject for each file.

    Raises UsageError that names the file and row that is not a multiple-choice document with one right answer, or whose acc disagrees.
    """
    if not described.model:
        raise UsageError(f"{files[0].name} does not name the model; name it with --model")
    read = [_read_file(path) for path in files]
    tasks = [file.task for file in read]
    if repeated := [task for task in tasks if tasks.count(task) > 1]:
        raise UsageError(f"two files hold details of {repeated[0]}; runs of several models or settings are imported one by one")
    if described.task:
        yield _run(read, described)
        return
    for file in read:
        yield _run([file], replace(described, task=file.task))


def _read_file(path: Path) -> _File:
    table = load_table(path)
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise UsageError(
            f"{path.name} has no column {missing[0]}; expected details of lighteval 0.11 or later with {', '.join(COLUMNS)}, and it has "
            f"{', '.join(table.columns)[:200]}"
        )
    rows, likelihoods, tasks = [], [], {}
    for number, row in enumerate(table.select(COLUMNS).iter_rows(named=True)):
        try:
            item, values = _row(row, number)
            tasks[str(row["doc"]["task_name"] or "")] = number
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            reason = str(error) if isinstance(error, ValueError) else f"it lacks or misstates {error}"
            raise UsageError(f"{path.name} row {number}: not a multiple-choice document: {reason[:200]}") from error
        rows.append(item)
        likelihoods.append(values)
    if len(tasks) > 1 or "" in tasks:
        raise UsageError(
            f"{path.name} holds documents of {len(tasks)} tasks ({', '.join(tasks)[:120]}); expected those of one, with a name"
        )
    return _File(path, next(iter(tasks)), rows, likelihoods)


def _row(row: Mapping[str, Any], number: int) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Return a row as an item, and the log-likelihoods of its choices."""
    doc, logged = row["doc"], row["metric"]
    choices = [str(choice) for choice in doc["choices"]]
    if not 2 <= len(choices) <= MAX_OPTIONS:
        raise ValueError(f"it has {len(choices)} choices; expected 2 to {MAX_OPTIONS}")
    logprobs = row["model_response"]["logprobs"] or []
    if len(logprobs) not in (len(choices), 2 * len(choices)):  # twice as many where choices were also asked without the question
        raise ValueError(f"it has {len(logprobs)} log-likelihoods for {len(choices)} choices")
    values = np.array(logprobs[: len(choices)], dtype=np.float64)
    if np.any(values > 0):
        raise ValueError(f"{values.max():.4g} is no log-likelihood, which is 0 at most")
    golds = doc["gold_index"] if isinstance(doc["gold_index"], list) else [doc["gold_index"]]
    if len(set(golds)) != 1:
        raise ValueError(f"it has {len(golds)} right answers; a prediction set is judged by one")
    answer = golds[0]
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise ValueError(f"gold_index {answer!r} is none of its {len(choices)} choices")
    if not isinstance(logged, Mapping) or logged.get(ACC) is None:
        has = ", ".join(name for name, value in logged.items() if value is not None) if isinstance(logged, Mapping) else logged
        raise ValueError(f"it has no {ACC} that log-likelihoods could be checked with; its own results are {has}")
    if logged[ACC] != (int(np.argmax(values)) == answer):
        likeliest = int(np.argmax(values))
        raise ValueError(f"its likeliest choice is {likeliest} and its answer {answer}, but its own {ACC} is {logged[ACC]:.3g}")
    letters = ascii_uppercase[: len(choices)]
    named = dict(zip(letters, (choice.strip() or choice for choice in choices), strict=True))
    return {"id": str(doc.get("id") or number), "question": str(doc["query"]) or "-", "choices": named, "answer": letters[answer]}, values


def _run(files: Sequence[_File], described: Description) -> tuple[ItemSet, Run]:
    """Return one run of all files; if there are several, each is a subject, and its documents have ids TASK/id."""
    rows = [row for file in files for row in file.rows]
    if len(files) > 1:
        rows = [{**row, "id": f"{file.task}/{row['id']}", "subject": file.task} for file in files for row in file.rows]
    origin = origin_of("lighteval", *(file.path for file in files))
    items = build_item_set(described.task, parse_items(rows, files[0].path.name), revision=origin)
    logits = np.full((len(items), int(items.n_options.max())), np.nan)
    for number, values in enumerate(values for file in files for values in file.likelihoods):
        logits[number, : len(values)] = values
    return items, imported_run(described, items, in_32_bits(logits, files[0].path.name), origin)


IMPORTER = Importer(
    read=read_lighteval,
    help="""Import lighteval's details of multiple-choice tasks; with --task several files become one run with subjects.

    Example: store import lighteval --model org/name details_arc:easy_2026-01-02T03-04-05.parquet
    """,
    parameters=[click.Argument(["files"], nargs=-1, required=True, type=EXISTING_FILE)],
    described=True,
)
