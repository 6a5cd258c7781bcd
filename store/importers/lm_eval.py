"""Import lm-evaluation-harness samples: samples_{task}_{time}.jsonl of multiple-choice tasks, log-likelihoods per choice.

In: files and the run's description.  Out: (item set, run) pairs. A log-likelihood of a whole answer takes the place of an option token's
logit: softmax over the options is the same formula.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from schemas.errors import UsageError
from schemas.items import Item
from schemas.itemset import ItemSet, build_item_set
from schemas.json_text import parse_json_lines, read_text
from schemas.private import shareable_message
from schemas.run import Run
from store.command import EXISTING_FILE
from store.importers.importer import Description, Importer, imported_run, origin_of
from store.importers.lm_eval_answers import read_answers, values_by_metric
from store.importers.lm_eval_samples import Sample, parse_sample

log = logging.getLogger(__name__)

FILE_NAME = re.compile(r"samples_(?P<task>.+?)(?:_\d{4}-\d\d-\d\dT[\d.:-]+)?\.jsonl")
METRICS = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")


class File(NamedTuple):
    """One samples file, read and checked.

    logits : a (option,) array for each sample.
    note   : which documents are missing, "" if none is.
    """

    path: Path
    task: str
    items: list[Item]
    logits: list[NDArray[np.float64]]
    note: str


def read_lm_eval(files: Sequence[Path], described: Description, metric: str | None = None) -> Iterator[tuple[ItemSet, Run]]:
    """Yield one run per samples file; if a task is given, all files become one run, with a subject for each file.

    metric : the harness's accuracy that the run shall have: its logits are log-likelihoods (acc), per character (acc_norm), per byte
             (acc_bytes), or minus those without context (acc_mutual_info). None means acc, unless the file has only other accuracies.
    Raises UsageError that names the file, line and document that is not a multiple-choice sample, or whose logged result disagrees.
    """
    read = [_read_file(path, described, metric) for path in files]
    if not described.task or len(read) == 1:
        for file in read:
            yield _run([file], replace(described, task=described.task or file.task), metric)
        return
    tasks = [file.task for file in read]
    if repeated := [task for task in tasks if tasks.count(task) > 1]:
        raise UsageError(f"two files hold samples of {repeated[0]}; runs of several models or settings are imported one by one")
    yield _run(read, described, metric)


def _read_file(path: Path, described: Description, metric: str | None) -> File:
    match = FILE_NAME.fullmatch(path.name)
    task = match["task"] if match else path.stem if described.task else ""
    if not task or not described.model:
        raise UsageError(f"{path.name}: name the model with --model, and a task that is not in samples_TASK_TIME.jsonl with --task")
    samples = _read_samples(path)
    answers, delimiter = read_answers(samples, path.name)
    by_metric = values_by_metric(samples, delimiter)
    chosen = metric or _only_metric(samples, path.name)
    if chosen not in by_metric:
        raise UsageError(f"{path.name} does not hold what {chosen} is computed from; it has {', '.join(by_metric)}")
    logits = [by_metric[chosen](sample) for sample in samples]
    if moved := sum(int(np.argmax(one) != np.argmax(one.astype(np.float32))) for one in logits):
        log.warning("%s: in %d samples the two likeliest choices are equal to 32 bits; the first of them counts", path.name, moved)
    if note := _missing(samples, path.name):
        log.warning("%s", note)
    return File(path, task, [_item(sample, answer) for sample, answer in zip(samples, answers, strict=True)], logits, note)


def _missing(samples: Sequence[Sample], name: str) -> str:
    """Return a sentence on documents that were not logged: the harness numbers those of a task from 0, and asks the first ones."""
    doc_ids = {int(sample.doc_id) for sample in samples if sample.doc_id.isdecimal()}
    expected = max(doc_ids, default=-1) + 1
    if len(doc_ids) == expected or len(doc_ids) < len(samples):
        return ""
    first = next(doc_id for doc_id in range(expected) if doc_id not in doc_ids)
    n_missing = expected - len(doc_ids)
    return f"{name}: {n_missing} of {expected} documents are missing, the first of doc_id {first}; figures are of those logged"


def _read_samples(path: Path) -> list[Sample]:
    """Return one sample for each document. Raises UsageError that names the first invalid line or doc_id."""
    by_id: dict[str, Sample] = {}
    failed: dict[str, UsageError] = {}
    for number, row in _lines(path):
        try:
            sample = parse_sample(row, number)
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            problem = f"{type(error).__name__} {str(error)[:160]}"
            refused = UsageError(f"{path.name} line {number} is not a multiple-choice sample: {problem}")
            if not isinstance(row, dict) or "filter" not in row or "doc_id" not in row:
                raise refused from error
            failed.setdefault(str(row["doc_id"]), refused)  # a filter may leave no likelihoods; another filter's line may have them
            continue
        if not by_id.setdefault(sample.doc_id, sample).same_question(sample):
            first = by_id[sample.doc_id].line
            raise UsageError(
                f"{path.name} lines {first} and {number} give doc_id {sample.doc_id} different questions or likelihoods; files of several "
                "tasks or runs are not to be joined: give them one by one"
            )
    for doc_id, refused in failed.items():
        if doc_id not in by_id:
            raise refused
    if not by_id:
        raise UsageError(f"{path.name} holds no samples")
    return sorted(by_id.values(), key=lambda sample: (len(sample.doc_id), sample.doc_id))  # processes on several GPUs log in turns


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        yield from parse_json_lines(read_text(path))
    except ValueError as error:
        raise UsageError(f"{path.name} cannot be read: {error}") from error


def _only_metric(samples: Sequence[Sample], name: str) -> str:
    """Return acc. Raises UsageError if the samples only have other accuracies, so that the user must choose one."""
    has = [metric for metric in METRICS if metric in samples[0].results]
    if has and "acc" not in has:
        raise UsageError(
            f"{name} has {', '.join(has)} and no acc: say --metric {has[0]} to import what that takes the largest of, or --metric acc for "
            "the plain log-likelihoods"
        )
    return "acc"


def _item(sample: Sample, answer: int) -> Item:
    choices = dict(zip(ascii_uppercase, sample.choices, strict=False))
    return Item(id=sample.doc_id, question=sample.question, choices=choices, answer=ascii_uppercase[answer])


def _run(files: Sequence[File], described: Description, metric: str | None) -> tuple[ItemSet, Run]:
    """Return one run of all files; if there are several, each is a subject and its documents have ids TASK/doc_id."""
    origin = origin_of("lm-eval", *(file.path for file in files))
    items = [item for file in files for item in file.items]
    if len(files) > 1:
        about = [{"id": f"{file.task}/{item.id}", "subject": file.task} for file in files for item in file.items]
        items = [item.model_copy(update=one) for item, one in zip(items, about, strict=True)]
    item_set = build_item_set(described.task, items, revision=origin)
    logits = np.full((len(items), int(item_set.n_options.max())), np.nan, dtype=np.float32)
    for row, values in enumerate(values for file in files for values in file.logits):
        logits[row, : len(values)] = values
    if metric not in (None, "acc"):  # so that it is never compared with a run of other figures
        described = replace(described, prompt=f"{described.prompt}-{metric}")
    run = imported_run(described, item_set, logits, origin)
    notes = tuple(shareable_message(file.note) for file in files if file.note)
    return item_set, replace(run, env=run.env.model_copy(update={"notes": notes}))


IMPORTER = Importer(
    read=read_lm_eval,
    help="""Import lm-evaluation-harness samples of multiple-choice tasks; with --task several files become one run with subjects.

    Example: store import lm-eval --model org/name samples_arc_easy_2026-01-02T03-04-05.jsonl
    """,
    parameters=[
        click.Argument(["files"], nargs=-1, required=True, type=EXISTING_FILE),
        click.Option(["--metric"], type=click.Choice(METRICS), help="Import the values that this accuracy of the harness compares. [acc]"),
    ],
    described=True,
)
