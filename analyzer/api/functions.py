"""The commands `sets`, `compare` and `sensitivity` as functions, and p-values.

`analyzer.api` describes the parameters that all functions have; `analyzer.protocols.ask` reads the options.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import xarray as xr

from analyzer.compare.two_axis_verdict import Tolerances
from analyzer.conformal.splits import given_split, parse_split
from analyzer.measure.question import Question
from analyzer.measure.records import frame
from analyzer.protocols.ask import ASKED, ask
from analyzer.runs.loading import Runs, open_runs, select_runs
from analyzer.runs.memory import MADE_WITH, MemoryReader, made_with, read_data_set
from analyzer.runs.pairs import Partners
from analyzer.runs.view import RunView, view_run
from analyzer.scorers import check_scorers
from schemas.errors import UsageError
from schemas.fields import FIELDS

Source = str | xr.Dataset | Sequence[xr.Dataset]


def sets(source: Source, *, at: str | None = None, average: bool = False, **options: Any) -> pl.DataFrame:
    """Return coverage and size of the prediction sets of every run: the command `analyze sets`.

    Parameters
    ----------
    source, at, options : see `analyzer.api`.
    average : return means over prompts and scorers instead, one row per model, method, level, task and alpha.

    Returns
    -------
    One row per run, scorer and alpha: accuracy, coverage (share of test items), set_size (options), .. each with its 95 % interval in
    `<name>_low` and `<name>_high`, and `unreliable`, the reason not to trust the row (null if there is none).

    Raises
    ------
    UsageError, RunNotFoundError
        See `analyzer.api`.

    Examples
    --------
    >>> from analyzer.api import example_runs, sets
    >>> dense, *compressed = example_runs()
    >>> table = sets(dense, alphas=[0.1, 0.2], scorers="lac")
    >>> table["coverage"].round(2).to_list(), table["set_size"].round(2).to_list()
    ([0.9, 0.8], [1.24, 0.91])
    """
    from analyzer.studies.sets import sets as sets_of

    asked = open_asked(source, at, options)
    return frame(sets_of(asked.runs, asked.question, average=average))


def compare(  # noqa: PLR0913  # one argument per option of the command line
    source: Source,
    *,
    at: str | None = None,
    against: str | None = None,
    common_items: bool = False,
    average: bool = False,
    accuracy_tolerance: float = Tolerances.accuracy,
    set_size_tolerance: float = Tolerances.set_size,
    **options: Any,
) -> pl.DataFrame:
    """Return every compressed run compared with its dense run: the command `analyze compare`.

    Parameters
    ----------
    source, at, options : see `analyzer.api`.
    against : name of a model whose dense runs all others are compared with, instead of each model's own dense runs.
    common_items : compare runs that answered different items on the items they share.
    average : return means over prompts and scorers instead of every run.
    accuracy_tolerance : accuracy losses up to this share of items count as no loss.
    set_size_tolerance : growth of the mean set size up to this many options counts as none.

    Returns
    -------
    One row per run, scorer and alpha. Changes are compressed minus dense, paired over the items that both answered, each with its 95 %
    interval; `flips` and `kl` (nats) are those of Dutta et al. 2024, arXiv:2407.09141; `verdict` says what the intervals show.

    Raises
    ------
    RunNotFoundError
        If no selected run has a dense run of its model, task and prompt.
    ComparisonError
        If two runs answered different questions; the message says what differs.
    UsageError
        See `analyzer.api`; also for a negative tolerance.

    Examples
    --------
    >>> from analyzer.api import compare, example_runs
    >>> table = compare(example_runs(), scorers="lac")
    >>> table["set_size_change"].round(2).to_list(), table["verdict"].to_list()
    ([None, 0.04, 1.37], [None, 'inconclusive', 'both degrade'])
    """
    from analyzer.compare.compare import compare as compare_runs

    asked = open_asked(source, at, options, with_dense=True, against=against)
    partners, tolerances = Partners(asked.runs.rows, against, common_items), Tolerances(accuracy_tolerance, set_size_tolerance)
    return frame(compare_runs(asked.runs, asked.question, partners=partners, tolerances=tolerances, average=average))


def beside_published(source: Source, figures: str | Path, *, at: str | None = None, **options: Any) -> pl.DataFrame:
    """Return published figures beside those measured on the runs: the command `analyze compare --reference`.

    Parameters
    ----------
    source, at, options : see `analyzer.api`.
    figures : CSV file with the columns model, method, level, task, metric (accuracy, coverage, set_size or uacc), value, and optionally
        note.

    Returns
    -------
    One row per published figure: its value, the measured value with its 95 % interval, and whether they agree, differ, or no run matches.

    Raises
    ------
    UsageError
        If the file cannot be read; the message names the line.
    """
    from analyzer.studies.published_figures import beside_published as beside
    from analyzer.studies.published_figures import read_published

    stated = read_published(Path(figures))
    asked = open_asked(source, at, options, with_dense=True)
    return frame(beside(asked.runs, asked.question, stated))


def sensitivity(source: Source, *, at: str | None = None, against: str | None = None, **options: Any) -> pl.DataFrame:
    """Return how every conclusion depends on alpha, scorer, prompt, calibration fraction, items and split: `analyze sensitivity`.

    Parameters
    ----------
    source, at, options : see `analyzer.api`; the first alpha and scorer are the choices with which all others are compared.
    against : as in `compare`.

    Returns
    -------
    One row per varied choice and compressed run: the smallest and largest set_size_change in options, the agreement of the rankings of
    runs (Kendall's tau, -1 to 1), the conclusion under the first choice, and whether it survives: true if at
    least half of the variants show it and none the opposite, false if one does, null where the first choice or most are inconclusive.

    Raises
    ------
    RunNotFoundError
        If no selected run has a dense run.

    Examples
    --------
    >>> from analyzer.api import example_runs, sensitivity
    >>> table = sensitivity(example_runs(), scorers="lac", level="0.5")
    >>> set(table["conclusion"]), table["survives"].all()
    ({'sets grow'}, True)
    """
    from analyzer.studies.sensitivity import sensitivity as sensitivity_of

    asked = open_asked(source, at, options, with_dense=True, against=against)
    return frame(sensitivity_of(asked.runs, asked.question, Partners(asked.runs.rows, against)))


def logits(store: str, *, at: str | None = None, **names: str | Sequence[str]) -> xr.Dataset:
    """Return the selected runs of a store as one data set, which every function of this API takes back.

    Parameters
    ----------
    store : address of a store.  at : tag or snapshot id; None is the newest snapshot.
    names : which runs: model, method, level, task, prompt, one name or several. All must have answered the same items.

    Returns
    -------
    Data set with `logits` (run, item, option) float32, NaN beyond an item's own options; `logsumexp` and `top_token` (run, item);
    `answer` (index of the correct option), `n_options`, `subject`, `demonstration` and `question` (item,), a number that is
    equal for items that ask the same question; coordinates `item_id`, and for `run` its name, model, method, level, task, prompt, and
    `made_with`, all that is stored of how it was made, as JSON.

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
    if unknown := sorted(set(names) - set(FIELDS)):
        raise UsageError(f"unknown argument {unknown[0]!r}; runs are selected by {', '.join(FIELDS)}")
    runs = open_runs(store, at, {field: _listed(names.get(field, ())) for field in FIELDS})
    read = [runs.reader.run(row["name"]) for row in runs.rows]
    if len({run.key.items_hash for run in read}) > 1:
        tasks = sorted({row["task"] for row in runs.rows})
        raise UsageError(f"the {len(read)} selected runs answered different items (tasks {', '.join(tasks)}); select one task")
    items = runs.reader.items(read[0].key.items_hash)
    of_item = {field: ("item", getattr(items, field)) for field in ("answer", "n_options", "demonstration")}
    return xr.Dataset(
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
            MADE_WITH: ("run", [made_with(run) for run in read]),
        },
        attrs={"store": store, "snapshot": runs.reader.snapshot},
    )


def p_values(data: xr.Dataset, scorer: str = "lac", *, calibration_ids: Sequence[int] = (), **parameters: float) -> xr.DataArray:
    """Return conformal p-values of every item's options; an option is in the set at alpha if and only if its p-value exceeds alpha.

    Parameters
    ----------
    data : a data set as `analyzer.api` describes it.
    scorer, parameters : name of the nonconformity score, such as "raps", and its parameters, such as penalty=0.1.
    calibration_ids : ids of the calibration items, which get no p-value; if empty, each item is calibrated on all other items.

    Returns
    -------
    (item, option) p-values in (0, 1]; NaN for options that an item does not have, and for calibration items.

    Raises
    ------
    UsageError
        For a data set without logits and answers, an unknown scorer or parameter, or an item id that is not among the items.

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
    """Return a data set as analyses see a run: probs and answers, without the items with non-finite logits, which are counted.

    Parameters
    ----------
    data : a data set as `analyzer.api` describes it.

    Raises
    ------
    UsageError
        If the data set lacks something; the message says what.

    Examples
    --------
    >>> from analyzer.api import example_runs, view_of
    >>> view = view_of(example_runs()[0])
    >>> view.probs.shape, view.n_nonfinite
    ((200, 4), 0)
    """
    items, run = read_data_set(data)
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
    Raises UsageError for an argument that is neither a field of runs nor an argument of `ask`, and for two data sets with the same names.
    """
    if unknown := sorted(set(options) - {*FIELDS, *ASKED}):
        raise UsageError(f"unknown argument {unknown[0]!r}; known: {', '.join([*FIELDS, *ASKED])}")
    question = ask(**{name: value for name, value in options.items() if name in ASKED})
    selection = {field: _listed(options.get(field, ())) for field in FIELDS}
    if isinstance(source, str):
        return RunsAndQuestion(open_runs(source, at, selection, with_dense=with_dense, against=against), question)
    reader = _in_memory([one for each in ([source] if isinstance(source, xr.Dataset) else source) for one in _single_runs(each)])
    return RunsAndQuestion(select_runs(reader, selection, with_dense=with_dense, against=against), question)


def _listed(names: str | Sequence[str]) -> Sequence[str]:
    return [names] if isinstance(names, str) else names


def _in_memory(data: Sequence[xr.Dataset]) -> MemoryReader:
    read = [read_data_set(one) for one in data]
    names = [run.key.name for _, run in read]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two data sets are the run {doubled[0]}; tell them apart by the attributes {', '.join(FIELDS)}")
    snapshots = {str(one.attrs.get("snapshot", "")) for one in data}
    snapshot = snapshots.pop() if len(snapshots) == 1 else ""
    return MemoryReader([items for items, _ in read], [run for _, run in read], *([snapshot] if snapshot else []))


def _single_runs(data: xr.Dataset) -> list[xr.Dataset]:
    """Return one data set per run, named by its coordinates where it has them, as those of `logits` do."""
    runs = [data.isel(run=number) for number in range(data.sizes["run"])] if "run" in data.dims else [data]
    return [one.assign_attrs({field: str(one[field].item()) for field in FIELDS if field in one.coords}) for one in runs]
