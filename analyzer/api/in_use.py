"""What prediction sets promise, keep and cost in use, as functions. `analyzer.api` describes the parameters that all functions have."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from analyzer.api.arguments import mix_of, prices_of
from analyzer.api.checked import checked
from analyzer.api.sources import Source, open_asked
from analyzer.measure.records import frame
from analyzer.runs.pairs import Partners
from analyzer.studies.cost import Prices
from analyzer.studies.guarantee import DELTA, N_NEXT, RISK
from analyzer.studies.threshold_transfer import COVERAGE_TOLERANCE


@checked
def transfer(
    source: Source,
    kept_from: str = "dense",
    *,
    at: str | None = None,
    against: str | None = None,
    coverage_tolerance: float = COVERAGE_TOLERANCE,
    **options: Any,
) -> pl.DataFrame:
    """Return coverage and set size with a reused threshold, compared with calibrating anew: the command `analyze transfer`.

    Parameters
    ----------
    source, at, options : see `analyzer.api`; only split "all".
    kept_from : whose threshold is reused: "dense" (the dense run's, for compressed runs), another "prompt", "task" or "subject".
    against : name of a model whose dense runs' thresholds are reused, instead of those of each model's own; only from "dense".
    coverage_tolerance : coverage up to this far below 1 - alpha counts as covering.

    Returns
    -------
    One row per run whose threshold is reused, run that reuses it, scorer and alpha: coverage and set size with the reused threshold and
    with a new one, each with its 95 % interval, and the finding.

    Raises
    ------
    RunNotFoundError
        If no two selected runs differ only in `kept_from`.
    UsageError
        For an unknown `kept_from`, or drawn splits.

    Examples
    --------
    >>> from analyzer.api import example_runs, transfer
    >>> table = transfer(example_runs(), scorers="lac", level="0.5")
    >>> table["coverage"].round(2).item(), table["recalibrated_coverage"].round(2).item()
    (0.7, 0.9)
    """
    from analyzer.studies.threshold_transfer import check_source
    from analyzer.studies.threshold_transfer import transfer as transfer_of

    check_source(kept_from, against)
    asked = open_asked(source, at, options, with_dense=kept_from == "dense", against=against)
    return frame(transfer_of(asked.runs, asked.question, kept_from, coverage_tolerance, Partners(asked.runs.rows, against)))


@checked
def weighted(
    source: Source,
    subject_mix: Mapping[str, float] | str | Path,
    *,
    at: str | None = None,
    coverage_tolerance: float = COVERAGE_TOLERANCE,
    **options: Any,
) -> pl.DataFrame:
    """Return prediction sets for another mix of subjects, by weighted calibration: the command `analyze transfer --subject-mix`.

    Parameters
    ----------
    source, at, options : see `analyzer.api`; only split "all".
    subject_mix : share of each subject in the new mix, or a TOML file with the table [subjects]; the shares need not add up to 1.
    coverage_tolerance : as in `transfer`.

    Returns
    -------
    One row per run, scorer and alpha: coverage and set size under the mix, with weighted and with unweighted thresholds.

    Raises
    ------
    UsageError
        For a subject that the items do not have, or a share that is not a number of 0 or more.

    Source : Tibshirani, Barber, Candes & Ramdas 2019, arXiv:1904.06019.

    Examples
    --------
    >>> from analyzer.api import example_runs, weighted
    >>> weighted(example_runs()[0], {"law": 0.9, "history": 0.1}, scorers="lac")["coverage"].round(2).item()
    0.91
    """
    from analyzer.studies.weighted_conformal import weighted as weighted_of

    mix = mix_of(subject_mix)
    asked = open_asked(source, at, options)
    return frame(weighted_of(asked.runs, asked.question, mix, coverage_tolerance))


@checked
def guarantee(
    source: Source, *, at: str | None = None, delta: float = DELTA, n_next: int = N_NEXT, risk: float = RISK, **options: Any
) -> pl.DataFrame:
    """Return what may be promised of each run: the command `analyze guarantee`.

    Parameters
    ----------
    source, at, options : see `analyzer.api`; all splits only.
    delta : share of calibration sets for which a guarantee may fail, in (0, 1).
    n_next : number of next questions whose covered and right answers are foretold.
    risk : share of the answers given alone that may be wrong, in (0, 1).

    Returns
    -------
    One row per run, scorer and alpha. With probability 1 - delta: the threshold of rank k covers at least `least_coverage`, between
    `next_covered_low` and `next_covered_high` of the next questions are covered, between `next_right_low` and `next_right_high` are right;
    sets of `sure_set_size` cover 1 - alpha; of answers whose prob is at least `answered_from`, the share `answered` of all, at most `risk`
    are wrong. No way of choosing answers can do with fewer left out than `least_abstention`.

    Raises
    ------
    UsageError
        For delta or risk outside (0, 1), or drawn splits.

    Source : Vovk 2012, arXiv:1209.2673; Angelopoulos et al. 2021, arXiv:2110.01052.

    Examples
    --------
    >>> from analyzer.api import example_runs, guarantee
    >>> row = guarantee(example_runs()[0], scorers="lac", risk=0.2)
    >>> row["least_coverage"].round(2).item(), row["next_covered_low"].item(), row["answered"].round(2).item()
    (0.85, 81, 0.95)
    """
    from analyzer.studies.guarantee import guarantee as guarantee_of

    asked = open_asked(source, at, options)
    return frame(guarantee_of(asked.runs, asked.question, delta=delta, n_next=n_next, risk=risk))


@checked
def cost(
    source: Source, prices: Prices | Mapping[str, Any] | str | Path, *, at: str | None = None, against: str | None = None, **options: Any
) -> pl.DataFrame:
    """Return the cost of acting on the sets, per 1,000 questions at given prices: the command `analyze cost`.

    Parameters
    ----------
    source, at, options : see `analyzer.api`; only split "all".
    prices : `analyzer.studies.cost.Prices` or a mapping of its fields, or a TOML file with the tables [prices], [rules] and [hardware].
    against : as in `compare`.

    Returns
    -------
    One row per run, scorer and alpha: the share of questions answered, asked again and reviewed, the cost of 1,000 questions in units of
    the prices, and its change against the dense run.

    Raises
    ------
    UsageError
        For prices that are not numbers of 0 or more (the message names every problem), or drawn splits.
    RunNotFoundError
        If no selected run is compressed and has a dense run.

    Examples
    --------
    >>> from analyzer.api import cost, example_runs
    >>> cost(example_runs(), {"review": 2.0}, scorers="lac")["cost"].round(0).to_list()
    [20.0, 34.0, 1145.0]
    """
    from analyzer.studies.cost import cost as cost_of

    read = prices_of(prices)
    asked = open_asked(source, at, options, with_dense=True, against=against)
    return frame(cost_of(asked.runs, asked.question, read, Partners(asked.runs.rows, against)))
