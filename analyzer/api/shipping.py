"""The commands that make and use a predictor (`analyze calibrate`, `predict` and `monitor`) as functions."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import polars as pl

from analyzer.api.arguments import mix_of, predictor_of, prices_of
from analyzer.api.checked import checked
from analyzer.api.sources import Source, open_asked
from analyzer.measure.records import frame
from analyzer.predictor import Predictor
from analyzer.protocols.ask import Number, Parameters, ask
from analyzer.studies.cost import Prices
from schemas.errors import UsageError
from schemas.numbers import exact_number


@checked
def calibrate(  # noqa: PLR0913  # one argument per option of the command
    source: Source,
    *,
    at: str | None = None,
    alpha: Number = "0.1",
    scorer: str = "lac",
    parameters: Parameters | Sequence[str] = (),
    empty: str = "keep",
    by: str = "none",
    reliability: str = "none",
    cluster: str | Mapping[str, str] | None = None,
    guarantee: str = "average",
    max_wrong: Number | None = None,
    prices: Prices | Mapping[str, Any] | str | Path | None = None,
    subject_mix: Mapping[str, float] | str | Path | None = None,
    expect: Mapping[str, str] | Sequence[str] = (),
    allow_unreliable: bool = False,
    **selection: str | Sequence[str],
) -> Predictor:
    """Return a predictor calibrated on all items of one run: the command `analyze calibrate`.

    Parameters
    ----------
    source, at : as in `sets`; model, method, level, task and prompt select the one run.
    alpha, scorer, parameters, empty : as in `sets`, but one of each; not aps-rand, which draws random numbers.
    by : "subject" gives every subject its own threshold.
    reliability : "temperature" fits a temperature on a fifth of the items, which are then not used to calibrate.
    cluster : which items depend on each other, as in `sets`; one of each cluster then calibrates. None: all items calibrate.
    guarantee : "average" over draws of the calibration items, or "pac:0.95" for coverage with that confidence.
    max_wrong : largest share of wrong answers among the questions that are answered without review.
    prices : as in `cost`; they also set the largest set that is asked again.
    subject_mix : the mix of subjects of the questions to come, as in `in_use.weighted`; each item then weighs as much as its subject has
        in that mix. None: the mix that the items have.
    expect : required fields of the run's key, {"prompt_hash": ".."} or ["prompt_hash=.."].
    allow_unreliable : make a predictor from an unreliable run too; its file says that the run is unreliable.

    Returns
    -------
    The predictor; `save` writes its file.

    Raises
    ------
    UsageError
        If not exactly one run is selected, or if it is unreliable, is not the expected one, or has too few items.

    Examples
    --------
    >>> from analyzer.api import calibrate, example_runs
    >>> predictor = calibrate(example_runs()[0], alpha=0.2)
    >>> predictor.names(predictor.predict([2.0, 0.0, 0.1, -1.0]))
    ('A',)
    """
    from analyzer.ship.calibrate import calibrate as calibrate_run
    from analyzer.ship.settings import PredictorSettings

    question = ask(alphas=str(alpha), scorers=scorer, parameters=parameters, empty=empty, by=by, reliability=reliability, cluster=cluster)
    if len(question.alphas) != 1 or by not in ("none", "subject"):
        raise UsageError(f"a predictor has one alpha and thresholds by none or subject; alpha is {alpha}, by is {by!r}")
    settings = PredictorSettings(
        question.alphas[0],
        question.scorers[0],
        question.parameters.get(question.scorers[0], {}),
        question.empty,
        by == "subject",
        reliability == "temperature",
        _confidence(guarantee),
        None if max_wrong is None else _share(str(max_wrong), "max_wrong"),
        None if prices is None else prices_of(prices),
        one_each=cluster is not None,
        mix=None if subject_mix is None else mix_of(subject_mix),
    )
    runs = open_asked(source, at, selection).runs.clustered(question.clustering)
    dense = open_asked(source, at, selection, with_dense=True).runs
    return calibrate_run(runs, settings, dense=dense, expect=_expected(expect), allow_unreliable=allow_unreliable)


@checked
def predict(predictor: Predictor | str | Path, logits: str | Path) -> pl.DataFrame:
    """Return the prediction set of every question of a table, and what to do with it: the command `analyze predict`.

    Parameters
    ----------
    predictor : the predictor or its file.
    logits : CSV, Parquet or JSON lines with columns logit_A, logit_B, ...; optional id, subject, n_options, and at_most, the smallest
        log-probability that an API returned, where it did not return that of every option.

    Returns
    -------
    One row per question: `set` (letters), `size`, `decision`, and `exact`, whether missing values could not change the set.

    Raises
    ------
    UsageError
        For an invalid column or row, which it names.

    Examples
    --------
    >>> import tempfile
    >>> from analyzer.api import calibrate, example_runs, predict
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "live.csv")
    ...     _ = file.write_text("id,logit_A,logit_B,logit_C,logit_D\\nq1,2.0,0.0,0.1,-1.0\\n")
    ...     predict(calibrate(example_runs()[0], alpha=0.2), file).rows()
    [(1, 'q1', 'A', 1, 'answer', True)]
    """
    from analyzer.watch.live_log import read_log
    from analyzer.watch.predict import predict as predict_rows

    loaded = predictor_of(predictor)
    return frame(predict_rows(loaded, read_log(Path(logits), loaded)))


@checked
def monitor(  # noqa: PLR0913  # one argument per option of the command
    predictor: Predictor | str | Path,
    log: str | Path,
    *,
    state: str | Path | None = None,
    delta: float = 0.01,
    coverage_tolerance: float = 0.02,
    mix_out: str | Path | None = None,
) -> pl.DataFrame:
    """Return whether a predictor's guarantee still holds for live questions: the command `analyze monitor`.

    Parameters
    ----------
    predictor : the predictor or its file.
    log : CSV, Parquet or JSON lines as in `predict`, with the logit of every option; optional answer, group, time and logsumexp. A row with
        only id and answer adds the answer of an earlier question.
    state : file that keeps the watch between calls; created if it does not exist.
    delta : chance of a false alarm, over all calls together.
    coverage_tolerance : by how much coverage may be below 1 - alpha and still count as holding.
    mix_out : TOML file to write if a changed mix of subjects explains an alarm: the mix since it changed, which `calibrate` takes as
        `subject_mix`. The log needs a column subject for this.

    Returns
    -------
    One row per check and group: what was `calibrated` and what is seen `live`, `low` and `high` (a confidence sequence), `e_value` with the
    `limit` at which it is an alarm, `result`, when a change `began`. In every row `outcome` is "holds", "alarm" or "not enough yet".

    Raises
    ------
    UsageError
        For a log with gaps, questions logged twice, answers that contradict each other, or a state of another predictor.

    Examples
    --------
    >>> import tempfile
    >>> from analyzer.api import calibrate, example_runs, monitor
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "live.csv")
    ...     _ = file.write_text("logit_A,logit_B,logit_C,logit_D,answer\\n2.0,0.0,0.1,-1.0,A\\n")
    ...     monitor(calibrate(example_runs()[0]), file)["outcome"][0]
    'not enough yet'
    """
    from analyzer.watch.mix_change import write_mix
    from analyzer.watch.monitor import follow
    from analyzer.watch.report import explanation, report
    from store.exchange.whole_file import check_writable

    if mix_out is not None:
        check_writable(Path(mix_out))
    watch = follow(predictor_of(predictor), Path(log), delta=delta, state=None if state is None else Path(state))
    records = report(watch, coverage_tolerance)
    if mix_out is not None:
        write_mix(explanation(watch, records, coverage_tolerance), Path(mix_out))
    return frame(records)


def _confidence(guarantee: str) -> Fraction | None:
    kind, _, value = guarantee.partition(":")
    if guarantee == "average":
        return None
    if kind != "pac":
        raise UsageError(f"guarantee {guarantee!r} is not one; expected average, or pac:C with a confidence such as pac:0.95")
    return _share(value, "the confidence of pac")


def _share(text: str, name: str) -> Fraction:
    try:
        share = exact_number(text)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None
    if not 0 < share < 1:
        raise UsageError(f"{name} is {text}; expected a value in (0, 1)")
    return share


def _expected(expect: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    if isinstance(expect, Mapping):
        return dict(expect)
    pairs = [text.partition("=") for text in ([expect] if isinstance(expect, str) else expect)]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        raise UsageError(f"--expect {wrong[0]!r} has no value; expected FIELD=VALUE, such as prompt_hash=3f2a9c01")
    return {name: value for name, _, value in pairs}
