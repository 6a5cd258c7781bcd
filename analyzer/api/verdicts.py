"""The commands that end in a verdict, as functions. `analyzer.api` describes the parameters that all functions have."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from analyzer.api.functions import Source, open_asked
from analyzer.compare.two_axis_verdict import Tolerances
from analyzer.measure.records import frame
from analyzer.predictor import Predictor
from analyzer.studies.cost import Prices
from analyzer.studies.guarantee import DELTA, N_NEXT, RISK
from analyzer.studies.threshold_transfer import COVERAGE_TOLERANCE


def decoupling(
    source: Source,
    *,
    at: str | None = None,
    accuracy_tolerance: float = Tolerances.accuracy,
    set_size_tolerance: float = Tolerances.set_size,
    **options: Any,
) -> pl.DataFrame:
    """Return how changes in accuracy and in set size go together over all pairs: the command `analyze compare --decoupling`.

    Parameters
    ----------
    source, at, options : see `analyzer.api`.
    accuracy_tolerance, set_size_tolerance : as in `compare`.

    Returns
    -------
    One row per group of pairs: their number, Spearman's rank correlation of the two changes, and the share of each verdict.

    Raises
    ------
    RunNotFoundError
        If no selected run has a dense run.

    Examples
    --------
    >>> from analyzer.api import decoupling, example_runs
    >>> decoupling(example_runs(), scorers="lac")["n_pairs"][0]
    2
    """
    from analyzer.compare.compare import compare
    from analyzer.studies.decoupling import decoupling as decoupling_of

    asked = open_asked(source, at, options, with_dense=True)
    return frame(decoupling_of(compare(asked.runs, asked.question, tolerances=Tolerances(accuracy_tolerance, set_size_tolerance))))


def transfer(
    source: Source,
    kept_from: str = "dense",
    *,
    at: str | None = None,
    coverage_tolerance: float = COVERAGE_TOLERANCE,
    **options: Any,
) -> pl.DataFrame:
    """Return coverage and set size with a reused threshold, compared with calibrating anew: the command `analyze transfer`.

    Parameters
    ----------
    source, at, options : see `analyzer.api`; only split "all".
    kept_from : whose threshold is reused: "dense" (the dense run's, for compressed runs), another "prompt", "task" or "subject".
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
    from analyzer.studies.threshold_transfer import transfer as transfer_of

    asked = open_asked(source, at, options, with_dense=kept_from == "dense")
    return frame(transfer_of(asked.runs, asked.question, kept_from, coverage_tolerance))


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
    from analyzer.studies.weighted_conformal import read_mix
    from analyzer.studies.weighted_conformal import weighted as weighted_of

    mix = subject_mix if isinstance(subject_mix, Mapping) else read_mix(Path(subject_mix))
    asked = open_asked(source, at, options)
    return frame(weighted_of(asked.runs, asked.question, mix, coverage_tolerance))


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


def position(source: Source, *, prompt: str | Sequence[str] = (), at: str | None = None, **options: Any) -> pl.DataFrame:
    """Return whether the place at which an option stands changes the answers: the command `analyze position`.

    Parameters
    ----------
    source, at, options : see `analyzer.api`; a store with runs in several orders of options, which `produce --options-order` makes.
    prompt : only these prompts, named without their orders.

    Returns
    -------
    One row per place (`by` position: how often it is chosen, how often the answer stands there, and the difference, the bias), one per
    order (accuracy, set_size and their changes from the items' own order) with one for the mean of the probabilities, and one for all.

    Raises
    ------
    RunNotFoundError
        If no selected run was asked in several orders.
    UsageError
        If the texts of the items are not kept.
    """
    from analyzer.studies.position import position as position_of

    asked = open_asked(source, at, options)
    return frame(position_of(asked.runs, asked.question, [prompt] if isinstance(prompt, str) else prompt))


def scale(source: Source, *, at: str | None = None, **options: Any) -> pl.DataFrame:
    """Return the growth of the sets by number of parameters: the command `analyze scale`.

    Parameters
    ----------
    source, at, options : see `analyzer.api`. The number of parameters is read from the run, or from a model's name such as "llama-7b".

    Returns
    -------
    One row per family, method, level, task, alpha and model: `inflation`, the relative growth of the mean set size over the dense run's,
    and `slope`, the change of the inflation per tenfold number of parameters.

    Raises
    ------
    RunNotFoundError
        If no selected run has a dense run.

    Examples
    --------
    >>> from analyzer.api import example_runs, scale
    >>> scale(example_runs(), scorers="lac", level="0.5")["inflation"].round(2).item()
    1.1
    """
    from analyzer.studies.scale import scale as scale_of

    asked = open_asked(source, at, options, with_dense=True)
    return frame(scale_of(asked.runs, asked.question))


def cliffs(
    source: Source,
    *,
    at: str | None = None,
    accuracy_tolerance: float = Tolerances.accuracy,
    set_size_tolerance: float = Tolerances.set_size,
    **options: Any,
) -> pl.DataFrame:
    """Return the strongest safe level of every sweep, and whether its sets grow gradually or suddenly: the command `analyze cliffs`.

    Parameters
    ----------
    source, at, options : see `analyzer.api`.
    accuracy_tolerance, set_size_tolerance : as in `compare`.

    Returns
    -------
    One row per level of every sweep (one model, method, task and prompt), each with the sweep's safe level and the shape of its growth.

    Raises
    ------
    RunNotFoundError
        If no selected run with a level has a dense run.

    Examples
    --------
    >>> from analyzer.api import cliffs, example_runs
    >>> table = cliffs(example_runs(), scorers="lac", set_size_tolerance=0.3)
    >>> table.select("level", "safe_level").rows()
    [('0.3', '0.3'), ('0.5', '0.3')]
    """
    from analyzer.studies.cliffs import cliffs as cliffs_of

    asked = open_asked(source, at, options, with_dense=True)
    return frame(cliffs_of(asked.runs, asked.question, tolerances=Tolerances(accuracy_tolerance, set_size_tolerance)))


def cost(source: Source, prices: Prices | str | Path, *, at: str | None = None, **options: Any) -> pl.DataFrame:
    """Return the cost of acting on the sets, per 1,000 questions at given prices: the command `analyze cost`.

    Parameters
    ----------
    source, at, options : see `analyzer.api`; only split "all".
    prices : `analyzer.studies.cost.Prices`, or a TOML file with the tables [prices], [rules] and [hardware].

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
    >>> from analyzer.studies.cost import Prices
    >>> cost(example_runs(), Prices(review=2.0), scorers="lac")["cost"].round(0).to_list()
    [20.0, 34.0, 1145.0]
    """
    from analyzer.studies.cost import cost as cost_of
    from analyzer.studies.cost import read_prices

    read = prices if isinstance(prices, Prices) else read_prices(Path(prices))
    asked = open_asked(source, at, options, with_dense=True)
    return frame(cost_of(asked.runs, asked.question, read))


def gate(
    source: Source,
    limits: Mapping[str, float] | None = None,
    *,
    policy: str | Path | None = None,
    predictor: Predictor | str | Path | None = None,
    at: str | None = None,
    **options: Any,
) -> pl.DataFrame:
    """Return the checks of the release gate: the command `analyze gate`.

    Parameters
    ----------
    source, at, options : see `analyzer.api`.
    limits : by figure, such as {"accuracy_loss": 0.02, "set_size_growth": 0.1}; they override those of the policy.
    policy : TOML file with the tables [limits], [task.<name>], [worst_subject], [worst_value] and [looks].
    predictor : also check that the threshold of this predictor, or of its file, still covers under the compressed model.

    Returns
    -------
    One row per check: the figure, the two ends of the interval that decide, the limit, and `result`, which is pass, fail or inconclusive.
    A check passes wrongly with a probability of at most 2.5 %; the model's `n_checks` checks together fail wrongly with at most 2.5 %.
    With planned looks both hold over all of them; `look` of `n_looks` is this one, `next_look` the number of items to ask with next.
    `result_together` is the result if all `n_models` compressed models of the table share both error probabilities.

    Raises
    ------
    UsageError
        For an unknown figure or a policy without limits; the message names every problem.
    RunNotFoundError
        If no selected run has a dense run.

    Examples
    --------
    >>> from analyzer.api import example_runs, gate
    >>> gate(example_runs(), {"accuracy_loss": 0.05}, scorers="lac", level="0.5").select("check", "result").rows()
    [('reliable', 'pass'), ('accuracy_loss', 'fail')]
    """
    from analyzer.gate.gate import gate as gate_of
    from analyzer.gate.policy import read_policy

    loaded = Predictor.load(predictor) if isinstance(predictor, str | Path) else predictor
    texts = [f"{name}={value}" for name, value in (limits or {}).items()]
    read = read_policy(None if policy is None else Path(policy), texts, loaded)
    asked = open_asked(source, at, options, with_dense=True)
    return frame(gate_of(asked.runs, asked.question, read.limits, looks=read.looks))
