"""The commands `sets`, `compare` and `sensitivity` as functions, and p-values.

`analyzer.api` describes the parameters that all functions have; `analyzer.protocols.ask` reads the options.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import xarray as xr

from analyzer.api.checked import checked, unknown_argument
from analyzer.api.sources import Source, ask, open_asked, single_runs, view_of
from analyzer.compare.two_axis_verdict import Tolerances
from analyzer.conformal.splits import Split, given_split
from analyzer.measure.question import Question
from analyzer.measure.records import frame
from analyzer.runs.memory import MADE_WITH
from analyzer.runs.pairs import Partners
from analyzer.scorers import Scorer, scorer_parameters


@checked
def sets(
    source: Source, *, at: str | None = None, average: bool = False, reference: str | Path | None = None, **options: Any
) -> pl.DataFrame:
    """Return coverage and size of the prediction sets of every run: the command `analyze sets`.

    Parameters
    ----------
    source, at, options : see `analyzer.api`.
    average : return means over prompts and scorers instead, one row per model, method, level, task and alpha.
    reference : CSV file of stated figures (docs/formats.md). Returned is then one row per row of the file: `<name>_stated`, `<name>` and
        their difference for every figure, and `agreement`. Alphas and scorers are those of the file where none are given.

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
    from analyzer.studies.reference_file import read_reference
    from analyzer.studies.replayed_figures import beside_reference
    from analyzer.studies.sets import sets as sets_of

    stated = None if reference is None else read_reference(Path(reference))
    asked = open_asked(source, at, stated.completed(options) if stated else options)
    records = sets_of(asked.runs, asked.question, average=average or (stated is not None and stated.averaged))
    return frame(beside_reference(records, stated) if stated else records)


@checked
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


@checked
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


@checked
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
    Of dense runs alone: the smallest and largest set_size of each, and the agreement of the rankings of models.

    Raises
    ------
    RunNotFoundError
        If compressed runs are selected and none has a dense run.

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


@checked
def p_values(
    data: xr.Dataset, scorer: str | Scorer = "lac", *, calibration_ids: Sequence[int | str] = (), **parameters: float
) -> xr.DataArray:
    """Return conformal p-values of every item's options; an option is in the set at alpha if and only if its p-value exceeds alpha.

    Parameters
    ----------
    data : a data set as `analyzer.api` describes it.
    scorer, parameters : nonconformity score, by name or as a function as in `ask`, and its parameters, such as penalty=0.1.
    calibration_ids : ids of the calibration items, which get no p-value; if none are given, each item is calibrated on all other items.

    Returns
    -------
    (item, option) p-values in (0, 1], with a dimension `run` in front where the data set has one; NaN for options that an item does not
    have, for calibration items and demonstrations, and for items with non-finite logits.

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
    question = ask(scorers=scorer)
    named = question.scorers[0]
    known = (*("data", "scorer", "calibration_ids"), *scorer_parameters(named, {}, question.functions.get(named)))
    if unknown := [name for name in parameters if name not in known]:
        raise unknown_argument(unknown[0], known)
    question = replace(question, parameters={named: scorer_parameters(named, parameters, question.functions.get(named))})
    if "run" not in data.dims:
        return _p_values(data, named, question, calibration_ids)
    runs = [_p_values(one, named, question, calibration_ids) for one in single_runs(data)]
    of_runs = {name: one for name, one in data.coords.items() if one.dims == ("run",) and name != MADE_WITH}
    return xr.concat(runs, "run").assign_coords(of_runs)


def _p_values(data: xr.Dataset, scorer: str, question: Question, calibration_ids: Sequence[int | str]) -> xr.DataArray:
    """The p-values of one run, for all items of the data set."""
    from analyzer.studies.p_values import p_values as p_values_of

    view = view_of(data)
    items, calibrates = view.items, None
    if calibration_ids:
        asked = ~items.demonstration
        given = Split("calibration_ids", calibration_ids=frozenset(map(str, calibration_ids)))
        calibrates = np.zeros(len(items), dtype=np.bool_)
        calibrates[asked] = given_split(items.item_id[asked], given)[0]
    values = np.full((len(items), data.sizes["option"]), np.nan)
    values[view.position] = p_values_of(view, scorer, question, None if calibrates is None else calibrates[view.position])
    return xr.DataArray(values, dims=("item", "option"), coords={"item_id": ("item", items.item_id)}, name="p_value")
