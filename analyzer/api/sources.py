"""Where the data of the Python API come from: runs of a store, or data sets in memory.

`open_asked` selects the runs of either for every function; `logits` reads runs into a data set, `view_of` a data set as a run.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from analyzer.api.checked import checked
from analyzer.measure.question import Question
from analyzer.protocols.ask import ASKED
from analyzer.protocols.ask import ask as ask_of
from analyzer.runs.loading import Runs, open_runs, select_runs
from analyzer.runs.memory import MADE_WITH, MemoryReader, made_with, read_data_set, snapshot_of
from analyzer.runs.view import RunView, view_run
from schemas.errors import UsageError
from schemas.fields import FIELDS

Source = str | Path | xr.Dataset | Sequence[xr.Dataset]

ask = checked(ask_of)


@checked
def logits(store: str | Path, *, at: str | None = None, **selection: str | Sequence[str]) -> xr.Dataset:
    """Return the selected runs of a store as one data set, which every function of this API takes back.

    Parameters
    ----------
    store : address of a store.  at : tag or snapshot id; None is the newest snapshot.
    selection : which runs: model, method, level, task, prompt, one name or several. All must have answered the same items.

    Returns
    -------
    Data set with `logits` (run, item, option) float32, NaN beyond an item's own options; `logsumexp` and `top_token` (run, item);
    `answer` (index of the correct option), `n_options`, `subject`, `demonstration` and `question` (item,), a number that is
    equal for items that ask the same question; coordinates `item_id`, and for `run` its name, model, method, level, task, prompt, and
    `made_with`, all that is stored of how it was made, as JSON. Figures of a data set that was changed cite no snapshot but
    "(in memory)"; a choice of runs is no change.

    Raises
    ------
    RunNotFoundError, StoreNotFoundError, StoreInvalidError, and UsageError if the runs answered different items.

    Examples
    --------
    ::

        data = logits("hedgemark-store", model="ref-m", task="urn", prompt="base")
        data.logits.sel(run=data.method == "dense")
        sets(data, alphas=0.1, scorers="lac")
    """
    runs = open_runs(str(store), at, {field: selection.get(field, ()) for field in FIELDS})
    read = [runs.reader.run(row["name"]) for row in runs.rows]
    if len({run.key.items_hash for run in read}) > 1:
        tasks = sorted({row["task"] for row in runs.rows})
        raise UsageError(f"the {len(read)} selected runs answered different items (tasks {', '.join(tasks)}); select one task")
    items = runs.reader.items(read[0].key.items_hash)
    of_item = {field: ("item", getattr(items, field)) for field in ("answer", "n_options", "demonstration")}
    data = xr.Dataset(
        {
            "logits": (("run", "item", "option"), np.stack([run.logits for run in read])),
            **{field: (("run", "item"), np.stack([getattr(run, field) for run in read])) for field in ("logsumexp", "top_token")},
            **of_item,
            "subject": ("item", np.array(items.subjects, dtype=np.str_)[items.subject]),
            "question": ("item", items.question),
        },
        coords={
            "item_id": ("item", items.item_id),
            "run": [row["name"] for row in runs.rows],
            **{field: ("run", [row[field] for row in runs.rows]) for field in FIELDS},
        },
        attrs={"store": str(store), "snapshot": runs.reader.snapshot},
    )
    return data.assign_coords({MADE_WITH: ("run", [made_with(run, data.isel(run=number)) for number, run in enumerate(read)])})


@checked
def view_of(data: xr.Dataset) -> RunView:
    """Return a data set as analyses see a run: probs and answers, without the items with non-finite logits, which are counted.

    Parameters
    ----------
    data : a data set of one run, as `analyzer.api` describes it.

    Raises
    ------
    UsageError
        If the data set lacks something, or holds several runs; the message says what.

    Examples
    --------
    >>> from analyzer.api import example_runs, view_of
    >>> view = view_of(example_runs()[0])
    >>> view.probs.shape, view.n_nonfinite
    ((200, 4), 0)
    """
    items, run = read_data_set(one_run(data))
    return view_run(run, items, {"name": run.key.name} | run.key.model_dump(), "(in memory)")


class RunsAndQuestion(NamedTuple):
    """The selected runs, and how they are to be analysed."""

    runs: Runs
    question: Question


def open_asked(
    source: Source, at: str | None, options: Mapping[str, Any], *, with_dense: bool = False, against: str | None = None
) -> RunsAndQuestion:
    """Return the selected runs and the question that keyword arguments describe.

    with_dense : also select the dense runs of the same models, tasks and prompts.  against : also select this model's dense runs.
    Raises UsageError for two data sets with the same names, and for a snapshot of data sets, which have none.
    """
    question = ask_of(**{name: value for name, value in options.items() if name in ASKED})
    selection = {field: options.get(field, ()) for field in FIELDS}
    if isinstance(source, str | Path):
        return RunsAndQuestion(open_runs(str(source), at, selection, with_dense=with_dense, against=against), question)
    if at is not None:
        raise UsageError(f"at is {at!r}, and only a store has snapshots; leave it out for data sets")
    reader = _in_memory([one for each in ([source] if isinstance(source, xr.Dataset) else source) for one in single_runs(each)])
    return RunsAndQuestion(select_runs(reader, selection, with_dense=with_dense, against=against), question)


def single_runs(data: xr.Dataset) -> list[xr.Dataset]:
    """Return one data set per run, named by its coordinates where it has them, as those of `logits` do.

    Raises UsageError for a data set without runs, or with several names for one.
    """
    runs = [data.isel(run=number) for number in range(data.sizes["run"])] if "run" in data.dims else [data]
    if not runs:
        raise UsageError("the data set holds no run; its dimension `run` has size 0")
    if wrong := [field for field in FIELDS if field in runs[0].coords and runs[0][field].ndim]:
        raise UsageError(f"the coordinate {wrong[0]} has the dimension {runs[0][wrong[0]].dims[0]}; a run has one {wrong[0]}")
    return [one.assign_attrs({field: str(one[field].item()) for field in FIELDS if field in one.coords}) for one in runs]


def one_run(data: xr.Dataset) -> xr.Dataset:
    """Return the one run of a data set. Raises UsageError if it holds several or none."""
    runs = single_runs(data)
    if len(runs) != 1:
        raise UsageError(f"the data set holds {len(runs)} runs, and one is expected; choose it, as in data.isel(run=0)")
    return runs[0]


def _in_memory(data: Sequence[xr.Dataset]) -> MemoryReader:
    read = [read_data_set(one) for one in data]
    names = [run.key.name for _, run in read]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two data sets are the run {doubled[0]}; tell them apart by the attributes {', '.join(FIELDS)}")
    snapshots = {snapshot_of(one) for one in data}
    snapshot = snapshots.pop() if len(snapshots) == 1 else ""
    return MemoryReader([items for items, _ in read], [run for _, run in read], *([snapshot] if snapshot else []))
