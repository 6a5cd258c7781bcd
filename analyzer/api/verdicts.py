"""The commands that end in a verdict, as functions. `analyzer.api` describes the parameters that all functions have."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from analyzer.api.arguments import predictor_of
from analyzer.api.checked import checked
from analyzer.api.sources import Source, open_asked
from analyzer.compare.two_axis_verdict import Tolerances
from analyzer.measure.records import frame
from analyzer.predictor import Predictor
from analyzer.runs.pairs import Partners
from schemas.fields import FIELDS


@checked
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


@checked
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
    return frame(position_of(asked.runs, asked.question, prompt))


@checked
def frontier(source: Source, *, at: str | None = None, against: str | None = None, **options: Any) -> pl.DataFrame:
    """Return accuracy and set size against the bytes of the weights: the command `analyze frontier`.

    Parameters
    ----------
    source, at, options : see `analyzer.api`.
    against : as in `compare`.

    Returns
    -------
    One row per run, scorer and alpha, by rising bytes: bytes, bits per weight and per cached value, accuracy, set_size and flips with their
    95 % intervals, and the finding: frontier, dominated (and by which run), inconclusive.

    Raises
    ------
    RunNotFoundError
        If no selected run has a dense run, or none says what its weights take.
    """
    from analyzer.runs.pairs import Partners
    from analyzer.studies.frontier import frontier as frontier_of

    asked = open_asked(source, at, options, with_dense=True, against=against)
    return frame(frontier_of(asked.runs, asked.question, Partners(asked.runs.rows, against)))


@checked
def text(store: str | Path, *, at: str | None = None, **selection: str | Sequence[str]) -> pl.DataFrame:
    """Return how far compressed models are from their dense models on running text: the command `analyze text`.

    Parameters
    ----------
    store : address of a store.
    at : as in all functions.
    selection : which runs over texts: model, method, level, task, prompt.

    Returns
    -------
    One row per run: kl, same_top, perplexity and perplexity_ratio with their 95 % intervals by document, and quantiles of kl over tokens.

    Raises
    ------
    RunNotFoundError
        If no selected run is over a text.
    """
    from analyzer.runs.loading import open_texts
    from analyzer.studies.text_fidelity import text_fidelity

    return frame(text_fidelity(open_texts(str(store), at, {field: selection.get(field, ()) for field in FIELDS})))


@checked
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


@checked
def cliffs(
    source: Source,
    *,
    at: str | None = None,
    against: str | None = None,
    accuracy_tolerance: float = Tolerances.accuracy,
    set_size_tolerance: float = Tolerances.set_size,
    **options: Any,
) -> pl.DataFrame:
    """Return the strongest safe level of every sweep, and whether its sets grow gradually or suddenly: the command `analyze cliffs`.

    Parameters
    ----------
    source, at, options : see `analyzer.api`.
    against, accuracy_tolerance, set_size_tolerance : as in `compare`.

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

    asked = open_asked(source, at, options, with_dense=True, against=against)
    partners, tolerances = Partners(asked.runs.rows, against), Tolerances(accuracy_tolerance, set_size_tolerance)
    return frame(cliffs_of(asked.runs, asked.question, tolerances=tolerances, partners=partners))


@checked
def gate(  # noqa: PLR0913  # one argument per option of the command
    source: Source,
    limits: Mapping[str, float] | None = None,
    *,
    policy: str | Path | None = None,
    predictor: Predictor | str | Path | None = None,
    at: str | None = None,
    against: str | None = None,
    **options: Any,
) -> pl.DataFrame:
    """Return the checks of the release gate: the command `analyze gate`.

    Parameters
    ----------
    source, at, options : see `analyzer.api`.
    limits : by figure, such as {"accuracy_loss": 0.02, "set_size_growth": 0.1}; they override those of the policy.
    policy : TOML file with the tables [limits], [task.<name>], [worst_subject], [worst_value] and [looks].
    predictor : also check that the threshold of this predictor, or of its file, still covers under the compressed model.
    against : as in `compare`.

    Returns
    -------
    One row per check: the figure, the two ends of the interval that decide, the limit, and `result`, which is pass, fail or inconclusive,
    or not judged for a compressed model without any matching dense run.
    A check passes wrongly with a probability of at most 2.5 %; the model's `n_checks` checks together fail wrongly with at most 2.5 %.
    With planned looks both hold over all of them; `look` of `n_looks` is this one, `next_look` the number of items to ask with next.
    `result_together` is the result if all `n_models` compressed models of the table share both error probabilities.

    Raises
    ------
    UsageError
        For an unknown figure or a policy without limits; the message names every problem. For a limit on a task that no run is of,
        unless tasks are selected by name, and where no limit is for a task of the selected runs.
    RunNotFoundError
        If no selected run has a dense run.

    Examples
    --------
    >>> from analyzer.api import example_runs, gate
    >>> gate(example_runs(), {"accuracy_loss": 0.05}, scorers="lac", level="0.5").select("check", "result").rows()
    [('reliable', 'pass'), ('accuracy_loss', 'fail')]
    """
    from analyzer.gate.gate import gate as gate_of
    from analyzer.gate.gate import tasks_not_judged
    from analyzer.gate.policy import read_policy

    loaded = None if predictor is None else predictor_of(predictor)
    texts = [f"{name}={value}" for name, value in (limits or {}).items()]
    read = read_policy(None if policy is None else Path(policy), texts, loaded)
    asked = open_asked(source, at, options, with_dense=True, against=against)
    tasks_not_judged(read.limits, asked.runs, options.get("task", ()))
    return frame(gate_of(asked.runs, asked.question, read.limits, Partners(asked.runs.rows, against), read.looks))
