"""`analyze calibrate`: the threshold to deploy, in a file that states its guarantee, the questions it is for, and test vectors for ports.

In: one run.  Out: the JSON value of a predictor (`schemas/predictor.md`). All items calibrate, because nothing is
tested here: `analyze sets` measures how good the predictor is. Only fitting a temperature sets a fifth of the items aside. Of items that
depend on each other one per cluster calibrates, drawn at random: these are exchangeable with a random question of a new cluster (Dunn,
Wasserman & Ramdas 2023, JASA 118, subsampling once).
For another mix of subjects than the items have, each item weighs as much as its subject has in that mix, as in `analyze transfer
--subject-mix`; the one threshold is that for a question of the subject with the largest weight, so that it covers for all of them.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from string import ascii_uppercase
from typing import Any, NamedTuple

import numpy as np

from analyzer.conformal.guarantees import answered_alone, least_calibration, sure_rank
from analyzer.conformal.ranks import threshold_rank
from analyzer.conformal.splits import draw_splits
from analyzer.measure.question import Question
from analyzer.measure.scored import scores_of
from analyzer.measure.temperature import fit_temperature, tempered_probs
from analyzer.measure.unreliable import against_dense, run_reasons
from analyzer.predictor.document import ANSWER, COARSE_BINS, DECISIONS, FORMAT, PRICES, VERSION, parse_document, sealed
from analyzer.predictor.looks import coarse, count_looks, looks_of
from analyzer.predictor.runtime import Judged, Predictor
from analyzer.predictor.stored_run import answered_right, judge_view
from analyzer.runs.loading import Runs
from analyzer.runs.pairs import Partners, pair_views
from analyzer.runs.view import RunView
from analyzer.scorers import PLUG_INS, RANDOM, scorer_parameters
from analyzer.ship.run_to_calibrate import KEY_FIELDS, check_expected, one_of_each_cluster, one_run
from analyzer.ship.settings import ALONE_CONFIDENCE, PredictorSettings, guarantee
from analyzer.ship.vectors import with_vectors
from analyzer.stats.arrays import BoolArray, FloatArray, IntArray
from analyzer.studies.weighted_conformal import under_mix, weighted_ranks
from schemas.errors import UsageError
from schemas.options import option_mass

FITTED = 5  # one in this many items is used to fit the temperature


class _Items(NamedTuple):
    """What a predictor is made of: the items that calibrate, what each weighs (item,), and its share of the questions to come (item,)."""

    view: RunView
    weight: FloatArray

    @property
    def share(self) -> FloatArray:
        return np.asarray(self.weight / self.weight.sum())


def calibrate(
    runs: Runs,
    settings: PredictorSettings,
    *,
    dense: Runs | None = None,
    expect: Mapping[str, str] | None = None,
    allow_unreliable: bool = False,
) -> Predictor:
    """Return a predictor that is calibrated on the one selected run, or on the largest if it was asked again with more questions.

    dense  : runs in which the matching dense run is looked up, to check whether the run differs too much from it.
    expect : required values of the run's key by field, such as {"prompt_hash": ".."}; a hash may be shortened to 8 digits or more.
    Raises UsageError if not exactly one run is selected, or if it is not the expected one, is unreliable, or has too few items, and for a
    mix of subjects with a guarantee that weights do not give.
    """
    _check_mix(settings)
    view = one_run(runs)
    check_expected(view, expect or {})
    partner = Partners(dense.rows).of(view.row) if dense else None
    reasons = list(run_reasons(view))
    if view.n_items < 2:
        raise UsageError(f"run {view.row['name']} has {view.n_items} items with finite logits; nothing can be calibrated on them")
    if dense and partner and partner["items_hash"] == view.row["items_hash"]:
        reasons += against_dense(*reversed(pair_views(dense.view(partner), view)))
    view = one_of_each_cluster(view) if settings.one_each else view
    value = _value(view, settings)
    reasons += [value["made_on"]["unreliable"]] if value["made_on"]["unreliable"] else []
    if reasons and not allow_unreliable:
        raise UsageError(
            f"run {view.row['name']} is unreliable: {'; '.join(reasons)}; no predictor was made. --allow-unreliable makes one that says so"
        )
    value["made_on"]["unreliable"] = "; ".join(reasons) or None
    predictor = Predictor(parse_document(sealed(with_vectors(value, view))))
    predictor.check(view.row["name"])
    return predictor


def _value(view: RunView, settings: PredictorSettings) -> dict[str, Any]:
    fitted = _fitted(view.n_items) if settings.tempered else np.zeros(view.n_items, dtype=np.bool_)
    temperature = fit_temperature(view, fitted) if settings.tempered else 1.0
    items = _weighed(view.keep(~fitted), settings)
    calibration = items.view
    probs = tempered_probs(calibration, temperature) if settings.tempered else calibration.probs
    question = Question(alphas=(settings.alpha,), scorers=(settings.scorer,), parameters={settings.scorer: dict(settings.parameters or {})})
    if settings.scorer in PLUG_INS:
        raise UsageError(
            f"scorer {settings.scorer} is of package {PLUG_INS[settings.scorer]}, which may be absent where the predictor is used; "
            "a predictor takes a scorer of Hedgemark"
        )
    if settings.scorer in RANDOM:
        raise UsageError(f"scorer {settings.scorer} draws a random number, so the same question would get other sets; use aps")
    answer_scores = scores_of(calibration, probs, settings.scorer, question)[np.arange(calibration.n_items), calibration.answer]
    groups = _threshold_groups(calibration, settings.by_subject)
    thresholds = [_threshold(answer_scores[chosen], items.weight[chosen], subject, settings) for subject, chosen in groups]
    letters = ascii_uppercase[: calibration.logits.shape[1]]
    n_options, counts = np.unique(calibration.n_options, return_counts=True)
    looks = looks_of(probs, settings.alpha, option_mass(calibration.logits, calibration.n_options, calibration.logsumexp))
    value: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "guarantee": guarantee(calibration, settings),
        "alpha": str(settings.alpha),
        "confidence": None if settings.confidence is None else str(settings.confidence),
        "scorer": settings.scorer,
        "parameters": {name: repr(one) for name, one in scorer_parameters(settings.scorer, settings.parameters or {}).items()},
        "temperature": repr(temperature),
        "empty": settings.empty,
        "letters": list(letters),
        "option_counts": {str(n): int(count) for n, count in zip(n_options, counts, strict=True)},
        "thresholds": thresholds,
        "rules": _rules(calibration, probs, settings),
        "made_on": _made_on(view, calibration),
        "promised": {},
        "looks": count_looks(looks),
        "subjects": _subjects(items, answer_scores, thresholds, looks, settings),
        "test_vectors": [],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "tool": f"hedgemark {version('hedgemark')}",
    }
    predictor = Predictor(parse_document(sealed(value)))
    judged = judge_view(predictor, calibration)
    value["promised"] = _promised(predictor, judged, items, settings)
    if (judged.sets.sum(axis=1) == calibration.n_options).all():
        value["made_on"]["unreliable"] = "every set is full"
    return value


def _check_mix(settings: PredictorSettings) -> None:
    """Raise UsageError for a mix of subjects beside something that is not weighted."""
    unlike = {
        "thresholds by subject, which hold under every mix": settings.by_subject,
        "a guarantee with a confidence": settings.confidence is not None,
        "a limit on wrong answers": settings.max_wrong is not None,
    }
    for what, is_set in unlike.items():
        if settings.mix is not None and is_set:
            raise UsageError(f"a mix of subjects cannot be combined with {what}; leave one of them out")


def _weighed(view: RunView, settings: PredictorSettings) -> _Items:
    """Return the items that calibrate and their weights; subjects that the mix does not have are left out."""
    if settings.mix is None:
        return _Items(view, np.ones(view.n_items))
    view, weight = under_mix(view, settings.mix)
    return _Items(view, weight[view.items.subject[view.position]])


def _fitted(n_items: int) -> BoolArray:
    """Return which items fit the temperature: a fifth, drawn with seed 0. Fitting on calibration items would void the guarantee."""
    if n_items < FITTED:
        raise UsageError(f"{n_items} items are too few to fit a temperature and to calibrate; expected {FITTED} or more")
    return np.asarray(draw_splits(n_items, n_items // FITTED, range(1))[0])


def _threshold_groups(view: RunView, by_subject: bool) -> list[tuple[str | None, BoolArray]]:
    if not by_subject:
        return [(None, np.ones(view.n_items, dtype=np.bool_))]
    subject = view.items.subject[view.position]
    by_name = [(name, np.asarray(subject == number)) for number, name in enumerate(view.items.subjects)]
    return [(name, chosen) for name, chosen in by_name if chosen.any()]


def _threshold(scores: FloatArray, weight: FloatArray, subject: str | None, settings: PredictorSettings) -> dict[str, Any]:
    n = scores.size
    if settings.mix is not None:
        order = np.argsort(scores, kind="stable")
        k = int(weighted_ranks(weight[order].cumsum(), np.array([weight.max()]), float(settings.alpha))[0]) + 1
    elif settings.confidence is None:
        k = threshold_rank(n, settings.alpha)
    else:
        k = sure_rank(n, settings.alpha, float(1 - settings.confidence))
    if k > n and subject is None:
        raise UsageError(
            f"{n} items are too few for alpha {float(settings.alpha):g}: every set would be full; expected {_fewest(settings)}"
        )
    value = math.inf if k > n else float(np.sort(scores)[k - 1])
    tied = 0 if k > n else int((scores == value).sum())
    text = "inf" if k > n else repr(value)
    return {"subject": subject, "threshold": text, "k": k, "n": n, "below": int((scores < value).sum()), "tied": tied}


def _fewest(settings: PredictorSettings) -> str:
    """Return how many items would do, in words."""
    if settings.mix is not None:
        return "more items of the subjects with the largest shares"
    if settings.confidence is None:
        return f"{math.ceil(1 / settings.alpha) - 1} or more"
    return f"{least_calibration(settings.alpha, float(1 - settings.confidence))} or more"


def _subjects(
    items: _Items, scores: FloatArray, thresholds: Sequence[Mapping[str, Any]], looks: Mapping[str, IntArray], settings: PredictorSettings
) -> dict[str, Any]:
    """Return what the watch needs of each subject, to tell a change of the mix from a change of the questions; {} if there is one."""
    groups = _threshold_groups(items.view, by_subject=True)
    if len(groups) < 2 and settings.mix is None:
        return {}
    threshold_of = {one["subject"]: float(one["threshold"]) for one in thresholds}
    by_subject = {}
    for name, chosen in groups:
        assert name is not None
        threshold = threshold_of[name if settings.by_subject else None]
        counts = {look: np.bincount(coarse(look, bins[chosen]), minlength=COARSE_BINS).tolist() for look, bins in looks.items()}
        share = None if settings.mix is None else repr(float(items.share[chosen].sum()))
        by_subject[name] = {"n": int(chosen.sum()), "covered": int((scores[chosen] <= threshold).sum()), "share": share, "looks": counts}
    return by_subject


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


def _made_on(view: RunView, calibration: RunView) -> dict[str, Any]:
    key = view.key.model_dump(mode="json")
    fields = {field: key[field] for field in KEY_FIELDS if field != "method_settings"}
    fields["method_settings"] = {name: one if isinstance(one, str) else str(one) for name, one in key["method_settings"].items()}
    return fields | {
        "run": view.row["name"],
        "run_key": view.key.digest,
        "snapshot": view.snapshot,
        "n_items": view.n_items,
        "n_calibration": calibration.n_items,
        "subjects": sorted({view.items.subjects[number] for number in calibration.items.subject[calibration.position]}),
        "unreliable": None,
    }


def _promised(predictor: Predictor, judged: Judged, items: _Items, settings: PredictorSettings) -> dict[str, Any]:
    """Return what the predictor achieves on the calibration questions; the watch compares live questions with it."""
    decisions, size, share = predictor.decisions(judged), judged.sets.sum(axis=1), items.share
    shares = {name: float(share @ (decisions == name)) for name in DECISIONS}
    wrong = float(share @ ((decisions == ANSWER) & ~answered_right(judged, items.view)))
    return {
        "accuracy": repr(float(share @ items.view.correct)),
        "set_size": repr(float(share @ size)),
        "alone_wrong": repr(wrong),
        "cost_per_1000": None if settings.prices is None else repr(predictor.cost_per_1000(shares, wrong)),
        "decisions": {name: repr(one) for name, one in shares.items()},
    }
