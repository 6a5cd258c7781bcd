"""The Python API: the commands' names, a store's address or an xarray data set in, a polars frame out.

    from analyzer.api import sets
    sets("hedgemark-store", task=["urn"], alphas=["0.05", "0.1"], scorers=["lac"])

A data set has `logits` (item, option), `answer` (item,), and may have `item_id` (item,) and `subject` (item,); the attributes model,
method, level, task and prompt name the run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import xarray as xr

from analyzer.conformal.splits import given_split, parse_split
from analyzer.measure.alphas import parse_alphas
from analyzer.measure.question import Question
from analyzer.measure.records import frame
from analyzer.protocols import rules
from analyzer.runs.fields import FIELDS
from analyzer.runs.loading import Runs, open_runs, select_runs
from analyzer.runs.view import RunView, view_run
from analyzer.scorers import check_scorers
from analyzer.stats.arrays import AnyArray
from schemas.errors import UsageError
from schemas.itemset import ItemSet
from schemas.run import UNKNOWN_TOKEN, Run, RunKey

Source = str | xr.Dataset | Sequence[xr.Dataset]
LETTERS = 26


def sets(source: Source, *, at: str | None = None, average: bool = False, **asked: Any) -> pl.DataFrame:
    """Return prediction sets of every run, one row per run, scorer and alpha; see `ask` for what may be asked."""
    from analyzer.studies.sets import sets as of_runs

    runs, question = runs_of(source, at, asked), ask(**asked)
    return frame(of_runs(runs, question, average=average))


def compare(source: Source, *, at: str | None = None, **asked: Any) -> pl.DataFrame:
    """Return every run beside its dense run, one row per run, scorer and alpha."""
    from analyzer.compare.compare import compare as of_runs

    return frame(of_runs(runs_of(source, at, asked, with_dense=True), ask(**asked)))


def sensitivity(source: Source, *, at: str | None = None, **asked: Any) -> pl.DataFrame:
    """Return how every conclusion depends on alpha, scorer, prompt, calibration fraction, number of items and split."""
    from analyzer.studies.sensitivity import sensitivity as of_runs

    return frame(of_runs(runs_of(source, at, asked, with_dense=True), ask(**asked)))


def p_values(data: xr.Dataset, scorer: str = "lac", *, calibration_ids: Sequence[int] = (), **parameters: float) -> xr.DataArray:
    """Return (item, option) conformal p-values; option j of item i is in the set at alpha if and only if its p-value exceeds alpha.

    calibration_ids : item ids that calibrate and get no p-value; without any, every item is judged by all the others.
    """
    from analyzer.studies.p_values import p_values as of_view

    view = view_of(data)
    question = Question(parameters={check_scorers([scorer])[0]: parameters})
    item_id = view.items.item_id[view.position]
    split = replace(parse_split("all"), text="given", calibration_ids=frozenset(int(i) for i in calibration_ids))
    values = of_view(view, scorer, question, given_split(item_id, split)[0] if calibration_ids else None)
    return xr.DataArray(values, dims=("item", "option"), coords={"item_id": ("item", item_id)}, name="p_value")


def ask(
    *, alphas: Sequence[str] = (), scorers: Sequence[str] = (), split: str | None = None, protocol: str = "exact", **fields: Any
) -> Question:
    """Return a question from text, as the command line has it; other fields are those of `analyzer.measure.question.Question`."""
    drawn = parse_split(split) if split else None
    given: dict[str, Any] = {"alphas": parse_alphas(alphas), "scorers": check_scorers(scorers), "split": drawn}
    return replace(rules(protocol).default, **{name: value for name, value in given.items() if value}, **_question_fields(fields))


def view_of(data: xr.Dataset) -> RunView:
    """Return the view of a data set. Raises UsageError naming what it lacks."""
    run, items = _run_of(data)
    return view_run(run, items, {"name": run.key.name} | run.key.model_dump(), "(in memory)")


def runs_of(source: Source, at: str | None, asked: Mapping[str, Any], *, with_dense: bool = False) -> Runs:
    """Return the runs of a store or of data sets that match the selection among what is asked."""
    wanted = {field: asked.get(field, ()) for field in FIELDS}
    if isinstance(source, str):
        return open_runs(source, at, wanted, with_dense=with_dense)
    return select_runs(MemoryStore([source] if isinstance(source, xr.Dataset) else source), wanted, with_dense=with_dense)


class MemoryStore:
    """Data sets in memory, read like a store."""

    snapshot = "(in memory)"

    def __init__(self, data: Sequence[xr.Dataset]) -> None:
        pairs = [_run_of(one) for one in data]
        self._runs = {run.key.name: run for run, _ in pairs}
        self._items = {items.digest: items for _, items in pairs}
        fields = ("model", "method", "level", "task", "prompt", "items_hash", "weights_hash", "dtype", "backend", "seed")
        self.catalog = pl.DataFrame(
            [{"name": name, "parameters": 0} | {field: getattr(run.key, field) for field in fields} for name, run in self._runs.items()]
        )

    def run(self, name: str) -> Run:
        """Return a run by name."""
        return self._runs[name]

    def items(self, items_hash: str) -> ItemSet:
        """Return an item set by hash."""
        return self._items[items_hash]


def _question_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    known = set(Question.__dataclass_fields__)
    unknown = sorted(set(fields) - known - set(FIELDS))
    if unknown:
        raise UsageError(f"unknown argument {unknown[0]!r}; known: {', '.join(sorted(known | set(FIELDS)))}")
    return {name: value for name, value in fields.items() if name in known}


def _run_of(data: xr.Dataset) -> tuple[Run, ItemSet]:
    missing = [name for name in ("logits", "answer") if name not in data]
    if missing or data["logits"].dims != ("item", "option"):
        raise UsageError(f"a data set needs logits (item, option) and answer (item,); it has {dict(data.sizes)} and lacks {missing}")
    logits = data["logits"].to_numpy().astype(np.float32)
    items = _items_of(data, logits)
    names = {
        field: str(data.attrs.get(field, default))
        for field, default in zip(FIELDS, ("model", "dense", "-", items.task, "base"), strict=True)
    }
    n_items = len(items)
    key = RunKey(items_hash=items.digest, **names)
    return Run(key, logits, np.full(n_items, np.nan, np.float32), np.full(n_items, UNKNOWN_TOKEN, np.int32)), items


def _items_of(data: xr.Dataset, logits: AnyArray) -> ItemSet:
    n_items, width = logits.shape
    item_id = data["item_id"].to_numpy() if "item_id" in data else np.arange(n_items)
    subjects, subject = (
        np.unique(data["subject"].to_numpy().astype(str), return_inverse=True) if "subject" in data else (np.array([""]), np.zeros(n_items))
    )
    answer = data["answer"].to_numpy()
    n_options = width - np.isnan(logits)[:, ::-1].cumprod(axis=1).sum(axis=1)
    n_options = np.where(n_options == 0, width, n_options)  # an item of NaN only is a broken run, not an item without options
    if width > LETTERS or ((answer < 0) | (answer >= n_options)).any():
        raise UsageError(f"every answer must be the index of one of its item's 2 to {LETTERS} options")
    return ItemSet(
        task=str(data.attrs.get("task", "task")),
        revision="",
        item_id=item_id.astype(np.uint64),
        content=np.zeros((n_items, 32), dtype=np.uint8),
        answer=answer.astype(np.int16),
        n_options=n_options.astype(np.int16),
        subject=subject.astype(np.int32),
        demonstration=np.zeros(n_items, dtype=np.bool_),
        subjects=tuple(subjects),
    )
