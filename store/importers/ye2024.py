"""Import the published logits of Ye et al. (arXiv 2401.12794): item JSON and pickles named {model}_{task}_{prompt}_icl{n}.pkl.

In: two folders.  Out: (item set, run) pairs, items in the order of the item JSON, as the benchmark's own protocol counts them.
"""

import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import numpy as np

from schemas.benchmark import BENCHMARK
from schemas.digest import json_digest
from schemas.errors import ItemError, UsageError
from schemas.items import Item, parse_items
from schemas.itemset import ItemSet, build_item_set
from schemas.json_text import parse_json, read_text
from schemas.private import shareable
from schemas.run import DENSE, UNKNOWN_TOKEN, Environment, FloatArray, Run, RunKey
from store.importers.importer import FOLDER, Importer
from store.importers.safe_pickle import load_plain_pickle

N_OPTIONS = 6  # of every item of the benchmark
MAX_PICKLE_BYTES = 2**29
FLOATS = {("f", 2), ("f", 4)}  # kind and bytes of half and single precision


TASKS = {Path(task.files[0]).stem: name for name, task in BENCHMARK.items()}  # published file names hold the stem, as in mmlu_10k
FILE_NAME = re.compile(rf"(?P<model>.+)_(?P<task>{'|'.join(TASKS)})_(?P<prompt>base|shared|task)_icl(?P<icl>\d+)\.pkl")


def read_ye2024(data: Path, logits: Path) -> Iterator[tuple[ItemSet, Run]]:
    """Yield each published run with its items.

    data   : folder with {task}.json.
    logits : folder with the pickles; every .pkl in it must have a name of the published form.
    Raises UsageError or ItemError naming the file that is not as published.
    """
    named = [(path, _parse_name(path)) for path in sorted(logits.glob("*.pkl"))]
    if not named:
        raise UsageError(f"no pickles in {logits}; expected files named {{model}}_{{task}}_{{prompt}}_icl{{n}}.pkl")
    task_items = {task: _read_task(data / f"{task}.json", task) for task in sorted({name["task"] for _, name in named})}
    for path, name in named:
        items, ids = task_items[name["task"]]
        yield items, _read_run(path, name, items, ids)


def _parse_name(path: Path) -> re.Match[str]:
    match = FILE_NAME.fullmatch(path.name)
    if match is None:
        raise UsageError(f"{path.name!r} is not named {{model}}_{{task}}_{{prompt}}_icl{{n}}.pkl with a task of {', '.join(TASKS)}")
    return match


def _read_task(path: Path, task: str) -> tuple[ItemSet, list[str]]:
    try:
        rows = parse_json(read_text(path))
    except ValueError as error:
        raise ItemError(f"cannot read items from {path}: {error}") from error
    if not isinstance(rows, list):
        raise ItemError(f"{path} holds a JSON {type(rows).__name__}; expected an array of items")
    items = [_with_source(item, task) for item in parse_items(rows, str(path))]
    wrong = [item.id for item in items if len(item.choices) not in (0, N_OPTIONS)]
    if wrong:
        raise UsageError(f"{path}: item {wrong[0]} does not have the benchmark's {N_OPTIONS} options")
    name = TASKS[task]
    revision = f"sha256:{sha256(path.read_bytes()).hexdigest()}"
    item_set = build_item_set(
        name, items, revision=revision, demonstrations=BENCHMARK[name].demonstrations, n_options=[N_OPTIONS] * len(items)
    )
    return item_set, [item.id for item in items]


def _with_source(item: Item, task: str) -> Item:
    """Name the task as the source of an item without text: it is identified by source and id alone, and tasks share ids."""
    return item if item.source or item.choices else item.model_copy(update={"source": task})


def _read_run(path: Path, name: re.Match[str], items: ItemSet, ids: Sequence[str]) -> Run:
    if path.stat().st_size > MAX_PICKLE_BYTES:
        raise UsageError(f"{path.name} has {path.stat().st_size} bytes; at most {MAX_PICKLE_BYTES} are read")
    content = path.read_bytes()
    logits = _logits(load_plain_pickle(content, path.name), ids, path.name)
    key = RunKey(
        model=name["model"],
        method=DENSE,
        task=items.task,
        items_hash=items.digest,
        prompt=name["prompt"],
        prompt_hash=json_digest(["ye2024", name["task"], name["prompt"], int(name["icl"])]),
        dtype="unknown",
        backend="imported",
    )
    unknown = np.full(len(items), np.nan, dtype=np.float32), np.full(len(items), UNKNOWN_TOKEN, dtype=np.int32)
    return Run(key, logits, *unknown, env=Environment(origin=f"ye2024 {shareable(path.name)} sha256:{sha256(content).hexdigest()}"))


def _logits(rows: Any, ids: Sequence[str], where: str) -> FloatArray:
    """Return (item, option) logits in the order of `ids`; a published file is a list of {"id", "logits_options"}."""
    try:
        by_id = {str(row["id"]): _options(row["logits_options"]) for row in rows}
    except (TypeError, KeyError, ValueError) as error:
        raise UsageError(f"{where} is not a list of {{'id', 'logits_options'}}: {type(error).__name__} {str(error)[:120]}") from error
    if len(by_id) != len(rows) or set(by_id) != set(ids):
        odd = sorted(set(by_id) ^ set(ids))[:3]
        example = ", ".join(odd) or "repeated ids"
        raise UsageError(f"{where} has {len(rows)} rows for {len(ids)} items, and their ids differ (for example {example})")
    return np.stack([by_id[one] for one in ids])


def _options(values: Any) -> FloatArray:
    if not isinstance(values, np.ndarray) or values.shape != (N_OPTIONS,) or (values.dtype.kind, values.dtype.itemsize) not in FLOATS:
        raise ValueError(f"logits_options is not {N_OPTIONS} half- or single-precision numbers")
    return values.astype(np.float32)


IMPORTER = Importer(
    read=read_ye2024,
    help="""Import the published logits of Ye et al. 2024.

    Example: store import ye2024 --data LLM-Uncertainty-Bench/data --logits LLM-Uncertainty-Bench/outputs_base
    """,
    parameters=[
        click.Option(["--data"], required=True, type=FOLDER, help="Folder with the item JSON."),
        click.Option(["--logits"], required=True, type=FOLDER, help="Folder with {model}_{task}_{prompt}_icl{n}.pkl."),
    ],
)
