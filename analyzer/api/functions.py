"""The commands `sets`, `compare` and `sensitivity` as functions, p-values, and data sets in memory that read like a store."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import xarray as xr

from analyzer.conformal.splits import given_split, parse_split
from analyzer.measure.question import Question
from analyzer.measure.records import frame
from analyzer.protocols.ask import ASKED, ask
from analyzer.runs.loading import Runs, open_runs, select_runs
from analyzer.runs.memory import MemoryReader
from analyzer.runs.view import RunView, view_run
from analyzer.scorers import check_scorers
from analyzer.stats.arrays import AnyArray
from schemas.errors import UsageError
from schemas.fields import FIELDS
from schemas.itemset import ItemSet
from schemas.run import UNKNOWN_TOKEN, Run, RunKey

Source = str | xr.Dataset | Sequence[xr.Dataset]
LETTERS = 26


def sets(source: Source, *, at: str | None = None, average: bool = False, **options: Any) -> pl.DataFrame:
    """Return prediction sets of every run: the command `analyze sets`.

    Parameters
    ----------
    source : address of a store, or one or several data sets with `logits` (item, option), `answer` (item,) as indices, and optionally
        `item_id` (item,) and `subject` (item,); the attributes model, method, level, task and prompt name the run.
    at : snapshot or tag of the store; the newest snapshot if left out.
    average : one row per model, method, level, task and alpha instead, the mean over prompts and scorers.
    options : which runs (model, method, level, task, prompt: a name or several), and what is asked of them (see `ask`).

    Returns
    -------
    One row per run, scorer and alpha: accuracy, coverage (share of test items), set_size (options), .. each with its 95 % interval in
    `<name>_low` and `<name>_high`.

    Raises
    ------
    UsageError for an option that cannot be meant; RunNotFoundError where no run matches.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> logits = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0], [0.5, 0.0]])
    >>> data = xr.Dataset({"logits": (("item", "option"), logits), "answer": ("item", [0, 0, 1, 1])})
    >>> sets(data, alphas=0.5, scorers="lac")["accuracy"].item()
    0.75
    """
    from analyzer.studies.sets import sets as sets_of

    asked = open_asked(source, at, options)
    return frame(sets_of(asked.runs, asked.question, average=average))


def compare(source: Source, *, at: str | None = None, **options: Any) -> pl.DataFrame:
    """Return every run beside its dense run: the command `analyze compare`, one row per run, scorer and alpha.

    source, at, options : as in `sets`.
    Changes are compressed minus dense, paired over the items that both answered, each with its 95 % interval.
    Raises RunNotFoundError where no selected run has a dense run of its model, task and prompt.
    """
    from analyzer.compare.compare import compare as compare_runs

    asked = open_asked(source, at, options, with_dense=True)
    return frame(compare_runs(asked.runs, asked.question))


def sensitivity(source: Source, *, at: str | None = None, **options: Any) -> pl.DataFrame:
    """Return how every conclusion depends on alpha, scorer, prompt, calibration fraction, items and split: `analyze sensitivity`.

    source, at, options : as in `sets`.
    """
    from analyzer.studies.sensitivity import sensitivity as sensitivity_of

    asked = open_asked(source, at, options, with_dense=True)
    return frame(sensitivity_of(asked.runs, asked.question))


def p_values(data: xr.Dataset, scorer: str = "lac", *, calibration_ids: Sequence[int] = (), **parameters: float) -> xr.DataArray:
    """Return conformal p-values of every item's options; an option is in the set at alpha if and only if its p-value exceeds alpha.

    Parameters
    ----------
    data : one run, as in `sets`.
    scorer, parameters : the nonconformity score, such as "raps", and its parameters, such as penalty=0.1.
    calibration_ids : item ids that calibrate and get no p-value; without any, every item is judged by all the others.

    Returns
    -------
    (item, option) p-values in (0, 1]; NaN beyond an item's own options and for calibration items.

    Raises
    ------
    UsageError for a data set without logits and answers, an unknown scorer or parameter, or an item id that is not among the items.

    Source : Vovk, Gammerman & Shafer 2005, section 2.2.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> logits = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0], [0.5, 0.0]])
    >>> p_values(xr.Dataset({"logits": (("item", "option"), logits), "answer": ("item", [0, 0, 1, 1])})).values.tolist()
    [[0.75, 0.25], [0.5, 0.25], [0.25, 1.0], [0.25, 0.25]]
    """
    from analyzer.studies.p_values import p_values as p_values_of

    view = view_of(data)
    question = Question(parameters={check_scorers([scorer])[0]: parameters})
    item_id = view.items.item_id[view.position]
    split = replace(parse_split("all"), text="given", calibration_ids=frozenset(str(i) for i in calibration_ids))
    values = p_values_of(view, scorer, question, given_split(item_id, split)[0] if calibration_ids else None)
    return xr.DataArray(values, dims=("item", "option"), coords={"item_id": ("item", item_id)}, name="p_value")


def view_of(data: xr.Dataset) -> RunView:
    """Return the view of a data set, as in `sets`. Raises UsageError naming what it lacks."""
    items, run = _run_of(data)
    return view_run(run, items, {"name": run.key.name} | run.key.model_dump(), "(in memory)")


class Asked(NamedTuple):
    """The selected runs and what is asked of them."""

    runs: Runs
    question: Question


def open_asked(source: Source, at: str | None, options: Mapping[str, Any], *, with_dense: bool = False) -> Asked:
    """Return the selected runs and the question that keyword arguments name.

    with_dense : also the dense runs of the same models, tasks and prompts.
    Raises UsageError for a name that is neither a field of runs nor an option of `ask`.
    """
    if unknown := sorted(set(options) - {*FIELDS, *ASKED}):
        raise UsageError(f"unknown argument {unknown[0]!r}; known: {', '.join([*FIELDS, *ASKED])}")
    question = ask(**{name: value for name, value in options.items() if name in ASKED})
    wanted = {field: _listed(options.get(field, ())) for field in FIELDS}
    if isinstance(source, str):
        return Asked(open_runs(source, at, wanted, with_dense=with_dense), question)
    pairs = [_run_of(data) for data in ([source] if isinstance(source, xr.Dataset) else source)]
    reader = MemoryReader([items for items, _ in pairs], [run for _, run in pairs])
    return Asked(select_runs(reader, wanted, with_dense=with_dense), question)


def _listed(names: str | Sequence[str]) -> Sequence[str]:
    return [names] if isinstance(names, str) else names


def _run_of(data: xr.Dataset) -> tuple[ItemSet, Run]:
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
    return items, Run(key, logits, np.full(n_items, np.nan, np.float32), np.full(n_items, UNKNOWN_TOKEN, np.int32))


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
