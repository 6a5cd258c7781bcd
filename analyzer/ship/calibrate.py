"""`analyze calibrate`: the threshold to deploy, in a file that states its guarantee, the questions it is for, and test vectors for ports.

In: one run.  Out: the JSON value of a predictor (`schemas/predictor.md`). All items calibrate, because nothing is
tested here: `analyze sets` measures how good the predictor is. Only fitting a temperature sets a fifth of the items aside. Of items that
depend on each other one per cluster calibrates, drawn at random: these are exchangeable with a random question of a new cluster (Dunn,
Wasserman & Ramdas 2023, JASA 118, subsampling once).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from importlib.metadata import version
from string import ascii_uppercase
from typing import Any

import numpy as np

from analyzer.conformal.guarantees import answered_alone, least_calibration, sure_rank
from analyzer.conformal.ranks import threshold_rank
from analyzer.conformal.splits import draw_splits
from analyzer.measure.question import Question
from analyzer.measure.scored import scores_of
from analyzer.measure.temperature import fit_temperature, tempered_probs
from analyzer.measure.unreliable import against_dense, run_reasons
from analyzer.predictor.document import ANSWER, DECISIONS, FORMAT, PRICES, VERSION, parse_document, sealed
from analyzer.predictor.looks import count_looks, looks_of
from analyzer.predictor.runtime import Predictor
from analyzer.predictor.stored_run import answered_right, judge_view
from analyzer.runs.answer_metrics import dependence
from analyzer.runs.loading import Runs
from analyzer.runs.pairs import Partners, pair_views
from analyzer.runs.view import RunView
from analyzer.scorers import RANDOM, scorer_parameters
from analyzer.ship.vectors import with_vectors
from analyzer.stats.arrays import BoolArray, FloatArray
from analyzer.stats.random_words import item_uniform
from analyzer.studies.cost import Prices
from schemas.errors import UsageError
from schemas.levels import method_and_level
from schemas.options import option_mass

FITTED = 5  # one in this many items is used to fit the temperature
ALONE_CONFIDENCE = Fraction(19, 20)  # of the limit on wrong answers, if none is given
KEY_FIELDS = (
    "model", "revision", "weights_hash", "method", "level", "method_settings", "compression_data_hash", "task", "items_hash", "prompt",
    "prompt_hash", "tokens_hash", "option_token_ids", "option_tokens", "dtype", "backend",
)  # fmt: skip


@dataclass(frozen=True)
class PredictorSettings:
    """The settings of a predictor.

    confidence : probability over draws of the calibration items that coverage holds; None for coverage on average over draws.
    by_subject : whether every subject gets a threshold of its own.
    tempered   : whether to fit a temperature first.
    one_each   : whether only one item of each cluster calibrates; else all items do, whether they are independent or not.
    max_wrong  : largest share of wrong answers among the questions answered without review; None for no limit.
    prices     : what a question costs under each decision; None without prices.
    """

    alpha: Fraction = Fraction(1, 10)
    scorer: str = "lac"
    parameters: Mapping[str, float] | None = None
    empty: str = "keep"
    by_subject: bool = False
    tempered: bool = False
    confidence: Fraction | None = None
    max_wrong: Fraction | None = None
    prices: Prices | None = None
    ask_again_up_to: int = 2
    one_each: bool = False


def calibrate(
    runs: Runs,
    settings: PredictorSettings,
    *,
    dense: Runs | None = None,
    expect: Mapping[str, str] | None = None,
    allow_unreliable: bool = False,
) -> Predictor:
    """Return a predictor that is calibrated on the one selected run.

    dense  : runs in which the matching dense run is looked up, to check whether the run differs too much from it.
    expect : required values of the run's key by field, such as {"prompt_hash": ".."}; a hash may be shortened to 8 digits or more.
    Raises UsageError if not exactly one run is selected, or if it is not the expected one, is unreliable, or has too few items.
    """
    view = _one_run(runs)
    _check_expected(view, expect or {})
    partner = Partners(dense.rows).of(view.row) if dense else None
    reasons = list(run_reasons(view))
    if view.n_items < 2:
        raise UsageError(f"run {view.row['name']} has {view.n_items} items with finite logits; nothing can be calibrated on them")
    if dense and partner and partner["items_hash"] == view.row["items_hash"]:
        reasons += against_dense(*reversed(pair_views(dense.view(partner), view)))
    view = one_of_each_cluster(view) if settings.one_each else view
    value = _value(view, settings)
    reasons += _set_reasons(value, view)
    if reasons and not allow_unreliable:
        raise UsageError(
            f"run {view.row['name']} is unreliable: {'; '.join(reasons)}; no predictor was made. --allow-unreliable makes one that says so"
        )
    value["made_on"]["unreliable"] = "; ".join(reasons) or None
    predictor = Predictor(parse_document(sealed(with_vectors(value, view))))
    predictor.check(view.row["name"])
    return predictor


def one_of_each_cluster(view: RunView) -> RunView:
    """Return the view of one item per cluster, drawn by the hash of its id, so that the same items are drawn again."""
    order = np.argsort(item_uniform(view.items.item_id[view.position]), kind="stable")
    first = np.unique(view.cluster_of_set[view.position][order], return_index=True)[1]
    return view.keep(np.sort(order[first]))


def _one_run(runs: Runs) -> RunView:
    if len(runs.rows) != 1:
        names = ", ".join(row["name"] for row in runs.rows[:4])
        more = f" and {len(runs.rows) - 4} more" if len(runs.rows) > 4 else ""
        raise UsageError(
            f"a predictor is made of one run, and {len(runs.rows)} are selected: {names}{more}; name model, method, level, task and prompt"
        )
    return runs.view(runs.rows[0])


def _check_expected(view: RunView, expect: Mapping[str, str]) -> None:
    key = view.key.model_dump(mode="json")
    for field, expected in expect.items():
        if field not in KEY_FIELDS:
            raise UsageError(f"there is no field {field!r} to expect; known: {', '.join(KEY_FIELDS)}")
        actual = ",".join(map(str, key[field])) if isinstance(key[field], list) else str(key[field])
        shortened = field.endswith("_hash") and len(expected) >= 8 and actual.startswith(expected)
        if actual != expected and not shortened:
            raise UsageError(f"run {view.row['name']} has {field} {actual[:80]!r}, not the expected {expected[:80]!r}; choose another run")


def _value(view: RunView, settings: PredictorSettings) -> dict[str, Any]:
    fitted = _fitted(view.n_items) if settings.tempered else np.zeros(view.n_items, dtype=np.bool_)
    temperature = fit_temperature(view, fitted) if settings.tempered else 1.0
    part = view.keep(~fitted)
    probs = tempered_probs(part, temperature) if settings.tempered else part.probs
    question = Question(alphas=(settings.alpha,), scorers=(settings.scorer,), parameters={settings.scorer: dict(settings.parameters or {})})
    if settings.scorer in RANDOM:
        raise UsageError(f"scorer {settings.scorer} draws a random number, so the same question would get other sets; use aps")
    answer_scores = scores_of(part, probs, settings.scorer, question)[np.arange(part.n_items), part.answer]
    thresholds = [_threshold(answer_scores[chosen], subject, settings) for subject, chosen in _parts(part, settings.by_subject)]
    letters = ascii_uppercase[: part.logits.shape[1]]
    n_options, counts = np.unique(part.n_options, return_counts=True)
    value: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "guarantee": _guarantee(part, settings),
        "alpha": str(settings.alpha),
        "confidence": None if settings.confidence is None else str(settings.confidence),
        "scorer": settings.scorer,
        "parameters": {name: repr(one) for name, one in scorer_parameters(settings.scorer, settings.parameters or {}).items()},
        "temperature": repr(temperature),
        "empty": settings.empty,
        "letters": list(letters),
        "option_counts": {str(n): int(count) for n, count in zip(n_options, counts, strict=True)},
        "thresholds": thresholds,
        "rules": _rules(part, probs, settings),
        "made_on": _made_on(view, part),
        "promised": {},
        "looks": count_looks(looks_of(probs, settings.alpha, option_mass(part.logits, part.n_options, part.logsumexp))),
        "test_vectors": [],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "tool": f"hedgemark {version('hedgemark')}",
    }
    predictor = Predictor(parse_document(sealed(value)))
    value["promised"] = _promised(predictor, part, settings)
    return value


def _fitted(n_items: int) -> BoolArray:
    """Return which items fit the temperature: a fifth, drawn with seed 0. Fitting on calibration items would void the guarantee."""
    if n_items < FITTED:
        raise UsageError(f"{n_items} items are too few to fit a temperature and to calibrate; expected {FITTED} or more")
    return np.asarray(draw_splits(n_items, n_items // FITTED, range(1))[0])


def _parts(view: RunView, by_subject: bool) -> list[tuple[str | None, BoolArray]]:
    if not by_subject:
        return [(None, np.ones(view.n_items, dtype=np.bool_))]
    subject = view.items.subject[view.position]
    by_name = [(name, np.asarray(subject == number)) for number, name in enumerate(view.items.subjects)]
    return [(name, chosen) for name, chosen in by_name if chosen.any()]


def _threshold(scores: FloatArray, subject: str | None, settings: PredictorSettings) -> dict[str, Any]:
    n = scores.size
    if settings.confidence is None:
        k = threshold_rank(n, settings.alpha)
        fewest = math.ceil(1 / settings.alpha) - 1
    else:
        k = sure_rank(n, settings.alpha, float(1 - settings.confidence))
        fewest = least_calibration(settings.alpha, float(1 - settings.confidence))
    if k > n and subject is None:
        raise UsageError(f"{n} items are too few for alpha {float(settings.alpha):g}: every set would be full; expected {fewest} or more")
    value = math.inf if k > n else float(np.sort(scores)[k - 1])
    tied = 0 if k > n else int((scores == value).sum())
    text = "inf" if k > n else repr(value)
    return {"subject": subject, "threshold": text, "k": k, "n": n, "below": int((scores < value).sum()), "tied": tied}


def _rules(view: RunView, probs: FloatArray, settings: PredictorSettings) -> dict[str, Any]:
    prices = None if settings.prices is None else {name: repr(float(getattr(settings.prices, name))) for name in PRICES}
    up_to = settings.ask_again_up_to if settings.prices is None else settings.prices.ask_again_up_to
    rules: dict[str, Any] = {"ask_again_up_to": up_to, "prices": prices, "alone": None}
    if settings.max_wrong is None:
        return rules
    confidence = settings.confidence or ALONE_CONFIDENCE
    rule = answered_alone(np.nanmax(probs, axis=1), view.correct, float(settings.max_wrong), float(1 - confidence))
    if not math.isfinite(rule.threshold):
        raise UsageError(
            f"no share of the {view.n_items} questions can be answered alone with at most {float(settings.max_wrong):g} wrong, "
            f"at confidence {float(confidence):g}; allow more wrong answers, or calibrate on more items"
        )
    rules["alone"] = {"threshold": repr(rule.threshold), "max_wrong": str(settings.max_wrong), "confidence": str(confidence)}
    return rules


def _guarantee(view: RunView, settings: PredictorSettings) -> str:
    row = view.row
    share = f"at least {100 * float(1 - settings.alpha):g} % of the questions have their answer in their set"
    within = ", within each subject by itself," if settings.by_subject else ""
    over = (
        f"on average over draws of the {view.n_items} calibration questions"
        if settings.confidence is None
        else f"for all but {100 * float(1 - settings.confidence):g} % of draws of the {view.n_items} calibration questions"
    )
    whom = f"{row['model']} ({method_and_level(row['method'], row['level'])})"
    alone = (
        ""
        if settings.max_wrong is None
        else f" Of the questions answered alone, at most {100 * float(settings.max_wrong):g} % are answered wrongly, "
        f"with {100 * float(settings.confidence or ALONE_CONFIDENCE):g} % confidence."
    )
    return (
        f"{share[0].upper()}{share[1:]}{within} {over}, for questions drawn as those of task {row['task']} were, "
        f"put to {whom} with prompt {row['prompt']}.{_depends(view, settings)}{alone}"
    )


def _depends(view: RunView, settings: PredictorSettings) -> str:
    """Return what items that depend on each other mean for the guarantee; "" if no two ask the same question and no clusters were given."""
    if settings.one_each:
        return " One question of each cluster of dependent questions calibrated, so it holds for a question of a new cluster."
    n_questions = dependence(view)["n_questions"]
    if n_questions == view.n_items:
        return ""
    return (
        f" It would be exact for independent questions; here only {n_questions} of the {view.n_items} are different, "
        "and --cluster question calibrates on one of each."
    )


def _made_on(view: RunView, part: RunView) -> dict[str, Any]:
    key = view.key.model_dump(mode="json")
    fields = {field: key[field] for field in KEY_FIELDS if field != "method_settings"}
    fields["method_settings"] = {name: one if isinstance(one, str) else str(one) for name, one in key["method_settings"].items()}
    return fields | {
        "run": view.row["name"],
        "run_key": view.key.digest,
        "snapshot": view.snapshot,
        "n_items": view.n_items,
        "n_calibration": part.n_items,
        "subjects": sorted({view.items.subjects[number] for number in part.items.subject[part.position]}),
        "unreliable": None,
    }


def _promised(predictor: Predictor, part: RunView, settings: PredictorSettings) -> dict[str, Any]:
    """Return what the predictor achieves on the calibration questions; the watch compares live questions with it."""
    judged = judge_view(predictor, part)
    decisions, size = predictor.decisions(judged), judged.sets.sum(axis=1)
    shares = {name: float((decisions == name).mean()) for name in DECISIONS}
    wrong = (decisions == ANSWER) & ~answered_right(judged, part)
    return {
        "accuracy": repr(float(part.correct.mean())),
        "set_size": repr(float(size.mean())),
        "alone_wrong": repr(float(wrong.mean())),
        "cost_per_1000": None if settings.prices is None else repr(predictor.cost_per_1000(decisions, float(wrong.mean()))),
        "decisions": {name: repr(share) for name, share in shares.items()},
    }


def _set_reasons(value: Mapping[str, Any], view: RunView) -> list[str]:
    size, widest = float(value["promised"]["set_size"]), view.mean_options
    return ["every set is full"] if abs(size - widest) < 1e-12 else []
