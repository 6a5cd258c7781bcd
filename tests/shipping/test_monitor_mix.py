"""A changed mix of subjects: the monitor tells it from a change of the questions, and weights make a threshold that covers under it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import xarray as xr
from analyzer_data import skilled_logits
from click.testing import CliRunner
from shipping import data_set, made, rewritten

from analyzer.api import calibrate, monitor
from analyzer.cli.main import main
from analyzer.predictor import Predictor
from analyzer.predictor.document import FIELDS_OF, sealed
from analyzer.watch.exchangeability import LookWatch, slope_factors
from analyzer.watch.live_log import LiveLog, read_log
from analyzer.watch.mix_change import mix_change
from analyzer.watch.monitor import Watch
from analyzer.watch.report import report
from schemas.errors import UsageError

SKILLS = {"law": 4.0, "history": 1.5, "maths": 0.3}
OLD, NEW = (0.6, 0.3, 0.1), (0.1, 0.2, 0.7)


def asked(n: int, shares: tuple[float, ...], seed: int, fall: float = 0.0) -> xr.Dataset:
    """Questions of three subjects of which the model knows much, some and little, `fall` less than in the run that calibrates."""
    rng = np.random.default_rng(seed)
    answers, subject = rng.integers(0, 4, n), rng.choice(list(SKILLS), n, p=shares)
    logits = np.empty((n, 4), dtype=np.float32)
    for name, skill in SKILLS.items():
        chosen = subject == name
        logits[chosen] = skilled_logits(rng, answers[chosen], 4, skill - fall)
    data = {"logits": (("item", "option"), logits), "answer": ("item", answers), "subject": ("item", subject)}
    return xr.Dataset(data, attrs={"model": "m", "task": "t"})


def log(path: Path, data: xr.Dataset, *, answered: bool = True) -> Path:
    """Write questions as the log of a server."""
    logits = data["logits"].to_numpy()
    columns: dict[str, Any] = {"id": [f"{path.stem}-{i}" for i in range(len(logits))], "subject": data["subject"].to_numpy()}
    columns |= {f"logit_{letter}": logits[:, i] for i, letter in enumerate("ABCD")}
    if answered:
        columns["answer"] = ["ABCD"[one] for one in data["answer"].to_numpy()]
    pl.DataFrame(columns).write_parquet(path)
    return path


def coverage(predictor: Predictor, data: xr.Dataset) -> float:
    answer = data["answer"].to_numpy()
    return float(predictor.predict(data["logits"].to_numpy())[np.arange(len(answer)), answer].mean())


def seen(predictor: Predictor, data: xr.Dataset, delta: float) -> Watch:
    """The watch after questions with answers and subjects."""
    watch = Watch(predictor, delta)
    logits, n = data["logits"].to_numpy().astype(np.float64), data.sizes["item"]
    n_options, nan, subject = np.full(n, 4), np.full(n, np.nan), data["subject"].to_numpy().tolist()
    watch.see(LiveLog("x", 1, None, logits, n_options, nan, data["answer"].to_numpy(), subject, None, None, None))
    return watch


def test_the_weighted_threshold_is_the_smallest_that_covers_enough() -> None:
    """Against a loop over all scores, with the largest subject weight at infinity; equal shares give the threshold without weights."""
    data = asked(400, OLD, 1)
    subject, answer = data["subject"].to_numpy(), data["answer"].to_numpy()
    logits = data["logits"].to_numpy().astype(np.float64)
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = 1 - (probs / probs.sum(axis=1, keepdims=True))[np.arange(400), answer]
    mix = dict(zip(SKILLS, NEW, strict=True))
    weight = np.array([mix[one] / (subject == one).sum() for one in subject])
    [found] = calibrate(data, subject_mix=mix).document.thresholds
    least = min(s for s in scores if weight[scores <= s].sum() >= 0.9 * (1 + weight.max()))
    assert found.value == pytest.approx(least, abs=1e-12)
    own = {name: float((subject == name).mean()) for name in SKILLS}
    assert calibrate(data, subject_mix=own).document.thresholds == calibrate(data).document.thresholds


@pytest.mark.simulation
def test_coverage_holds_under_the_mix_that_was_asked_for() -> None:
    """100 predictors of 300 items: weighted they cover 90 % of questions in the new mix on average, unweighted far fewer."""
    mix, covered = dict(zip(SKILLS, NEW, strict=True)), []
    for seed in range(100):
        calibration, fresh = asked(300, OLD, seed), asked(1000, NEW, 10_000 + seed)
        covered.append([coverage(calibrate(calibration, subject_mix=one), fresh) for one in (mix, None)])
    (weighted, plain), error = np.mean(covered, axis=0), np.std(covered, axis=0)[0] / 10
    assert 0.9 - 3 * error < weighted < 0.93
    assert plain < 0.85


@pytest.mark.simulation
def test_from_the_alarm_to_a_threshold_for_the_new_mix(tmp_path: Path) -> None:
    """Alarm, explained by the mix; its file makes a predictor that covers under it and whose watch is quiet, until the mix moves back."""
    run = asked(2000, OLD, 1)
    calibrate(run).save(tmp_path / "p.json")
    log(tmp_path / "live.parquet", xr.concat([asked(500, OLD, 2), asked(2000, NEW, 3)], "item"))
    words = ["--predictor", str(tmp_path / "p.json"), "--log", str(tmp_path / "live.parquet"), "--mix-out", str(tmp_path / "mix.toml")]
    done = CliRunner().invoke(main, ["monitor", *words])
    assert done.exit_code == 1, done.output
    assert "a changed mix of subjects explains it (maths 0." in done.stderr and "law 0.6" in done.stderr
    predictor = calibrate(run, subject_mix=tmp_path / "mix.toml")
    parts = predictor.document.parts
    assert [parts[name].share for name in SKILLS] == pytest.approx(NEW, abs=0.05)
    fresh = asked(4000, NEW, 4)
    assert coverage(Predictor.load(tmp_path / "p.json"), fresh) < 0.8
    assert coverage(predictor, fresh) == pytest.approx(0.9, abs=0.03)
    assert "in the mix maths 0." in predictor.document.value["guarantee"]
    predictor.save(tmp_path / "new.json")
    quiet = monitor(tmp_path / "new.json", log(tmp_path / "fresh.parquet", fresh))
    assert quiet["outcome"][0] != "alarm", quiet
    back = monitor(tmp_path / "new.json", log(tmp_path / "back.parquet", asked(1000, OLD, 5), answered=False))
    alarms = set(back.filter(result="alarm")["check"])
    assert alarms == {"share of questions"}


def test_a_change_within_subjects_is_not_laid_to_the_mix(tmp_path: Path) -> None:
    """The mix moves and the model knows less of each subject: no mix is proposed and none is written."""
    calibrate(asked(2000, OLD, 1)).save(tmp_path / "p.json")
    log(tmp_path / "live.parquet", asked(2000, NEW, 2, fall=1.2))
    words = ["--predictor", str(tmp_path / "p.json"), "--log", str(tmp_path / "live.parquet"), "--mix-out", str(tmp_path / "mix.toml")]
    done = CliRunner().invoke(main, ["monitor", *words])
    assert done.exit_code == 1 and "changed within subjects too" in done.stderr
    assert not (tmp_path / "mix.toml").exists()


def test_more_misses_than_the_mix_explains_are_said(tmp_path: Path) -> None:
    """The questions look alike within subjects, but the key of the answers is another one: only the misses tell."""
    data = asked(2000, NEW, 2)
    data["answer"] = ("item", np.random.default_rng(0).integers(0, 4, 2000))
    watch = seen(calibrate(asked(2000, OLD, 1)), data, 0.01)
    change = mix_change(watch, 0.02)
    assert change is not None and not change.shares and "should be missed under it, and more are" in change.why


def test_a_subject_that_no_calibration_question_has(tmp_path: Path) -> None:
    """No mix explains it; under a threshold that was made for a mix, the log is refused."""
    data = asked(1000, NEW, 2)
    data["subject"] = ("item", np.where(data["subject"].to_numpy() == "maths", "sport", data["subject"].to_numpy()))
    change = mix_change(seen(calibrate(asked(2000, OLD, 1)), data, 0.01), 0.02)
    assert change is not None and "questions are of subjects that no calibration question has" in change.why
    predictor = calibrate(asked(2000, OLD, 1), subject_mix={"law": 1.0, "maths": 1.0})
    with pytest.raises(UsageError, match=r"row \d+ is of subject 'sport', which the mix"):
        monitor(predictor, log(tmp_path / "live.parquet", data))
    pl.read_parquet(tmp_path / "live.parquet").drop("subject").write_parquet(tmp_path / "none.parquet")
    with pytest.raises(UsageError, match="has no column subject; the threshold is for a mix of subjects"):
        monitor(predictor, tmp_path / "none.parquet")


def test_thresholds_by_subject_hold_under_any_mix(tmp_path: Path) -> None:
    """The alarm stands, since the questions are others; the last line says that a mix alone breaks no promise."""
    calibrate(asked(2000, OLD, 1), by="subject").save(tmp_path / "p.json")
    log(tmp_path / "live.parquet", asked(1000, NEW, 2), answered=False)
    done = CliRunner().invoke(main, ["monitor", "--predictor", str(tmp_path / "p.json"), "--log", str(tmp_path / "live.parquet")])
    assert done.exit_code == 1 and "each subject has its own threshold" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"by": "subject"}, "thresholds by subject, which hold under every mix"),
        ({"guarantee": "pac:0.95"}, "a guarantee with a confidence"),
        ({"max_wrong": "0.3"}, "a limit on wrong answers"),
        ({"subject_mix": {"sport": 1.0}}, "no items of subject 'sport'"),
        ({"alpha": "0.001"}, "more items of the subjects with the largest shares"),
    ],
)
def test_what_weights_do_not_give_is_refused(options: dict[str, Any], said: str) -> None:
    """One sentence each, before anything is written."""
    with pytest.raises(UsageError, match=said):
        calibrate(data_set(), **{"subject_mix": {"law": 0.8, "history": 0.2}, **options})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda value: value["subjects"]["law"].update(share="0.9"), "do not add up to 1"),
        (lambda value: value["subjects"]["law"].update(share=None), "a share for every subject"),
        (lambda value: value["subjects"]["law"].update(covered=0), "are not those of its thresholds"),
        (lambda value: value["subjects"]["law"].update(n=1), "do not fit 1 questions"),
        (lambda value: value["subjects"]["law"]["looks"].pop("entropy"), "not of the same statistics"),
        (lambda value: value["subjects"].pop("law"), "are not those of its thresholds"),
        (lambda value: value.update(alpha="1/100"), "less than alpha 1/100 asks for"),
        (lambda value: value.update(confidence="9/10"), "stands alone"),
        (lambda value: value.update(version=1), "has a field 'subjects', which version 1 does not have"),
    ],
)
def test_a_weighted_predictor_that_contradicts_itself_is_refused(change: Any, said: str, tmp_path: Path) -> None:
    """Shares, counts and the threshold are held against each other, whatever the digest says."""
    path = rewritten(tmp_path / "p.json", made(subject_mix={"law": 0.8, "history": 0.2}), change)
    with pytest.raises(UsageError, match=said):
        Predictor.load(path)


def test_a_predictor_of_version_1_is_read(tmp_path: Path) -> None:
    """It has no counts of subjects: the same sets, the same watch, and no word about the mix."""
    predictor = made()
    value = {name: one for name, one in predictor.document.value.items() if name in FIELDS_OF[1]} | {"version": 1}
    (tmp_path / "p.json").write_text(json.dumps(sealed(value)))
    old = Predictor.load(tmp_path / "p.json")
    rows = np.random.default_rng(0).normal(size=(50, 4))
    np.testing.assert_array_equal(old.predict(rows), predictor.predict(rows))
    calibrate(asked(2000, OLD, 1)).save(tmp_path / "new.json")
    value = json.loads((tmp_path / "new.json").read_text())
    value = {name: one for name, one in value.items() if name in FIELDS_OF[1]} | {"version": 1}
    (tmp_path / "old.json").write_text(json.dumps(sealed(value)))
    live = log(tmp_path / "live.parquet", asked(1000, NEW, 2))
    for name in ("old", "new"):
        done = CliRunner().invoke(main, ["monitor", "--predictor", str(tmp_path / f"{name}.json"), "--log", str(live)])
        assert done.exit_code == 1 and ("mix of subjects" in done.stderr) == (name == "new")


def test_nights_together_are_one_long_night_by_subject_too(tmp_path: Path) -> None:
    """The counts and tests within subjects go through the state file to the last digit; answers of a later night need no subject."""
    predictor = calibrate(asked(1000, OLD, 1), subject_mix=dict(zip(SKILLS, NEW, strict=True)))
    predictor.save(tmp_path / "p.json")
    whole = pl.read_parquet(log(tmp_path / "live.parquet", asked(900, NEW, 2)))
    at_once = monitor(tmp_path / "p.json", tmp_path / "live.parquet")
    for end in (300, 301, 900):
        whole[:end].with_columns(answer=pl.lit(None, pl.String)).write_parquet(tmp_path / "live.parquet")
        monitor(tmp_path / "p.json", tmp_path / "live.parquet", state=tmp_path / "state.json")
    letters = [f"logit_{letter}" for letter in "ABCD"]
    whole.select("id", "answer", *(pl.lit(None, pl.Float64).alias(name) for name in letters)).write_parquet(tmp_path / "answers.parquet")
    last = monitor(tmp_path / "p.json", tmp_path / "answers.parquet", state=tmp_path / "state.json")
    assert last.to_dicts() == at_once.to_dicts()


def test_p_values_within_subjects_are_ranks_among_the_same_subject() -> None:
    """The capital against a loop that ranks every question among the earlier ones of its subject."""
    rng = np.random.default_rng(1)
    calibration, bins, subject = rng.integers(1, 9, (3, 32)), rng.integers(0, 32, 400), rng.integers(0, 3, 400)
    watch = LookWatch("top_prob", calibration.tolist(), 7, 4)
    whole = LookWatch("top_prob", calibration.tolist(), 7, 4)
    whole.see(bins, subject, [""] * 400)
    for part in (slice(0, 150), slice(150, 151), slice(151, 400)):
        watch.see(bins[part], subject[part], [""] * len(bins[part]))
    from analyzer.stats.random_words import item_uniform
    from analyzer.watch.betting import Bets

    u, counts, bets = item_uniform(np.arange(400, dtype=np.uint64) + np.uint64(7)), calibration.copy(), Bets(8)
    for value, number, one in zip(bins, subject, u, strict=True):
        counts[number, value] += 1
        larger = counts[number, value + 1 :].sum()
        bets.step(slope_factors(np.asarray((larger + one * counts[number, value]) / counts[number].sum())))
    assert float(bets.total) == pytest.approx(float(watch.bets.total), rel=1e-9) == pytest.approx(float(whole.bets.total), rel=1e-9)


@pytest.mark.slow
def test_false_alarms_of_a_threshold_for_a_mix_stay_below_delta() -> None:
    """200 predictors of 400 items for the new mix watch 400 questions of it with answers: alarms stay within delta 0.2."""
    mix, alarms = dict(zip(SKILLS, NEW, strict=True)), 0
    for seed in range(200):
        watch = seen(calibrate(asked(400, OLD, seed), subject_mix=mix), asked(400, NEW, 50_000 + seed), 0.2)
        alarms += report(watch, 0.02)[0]["outcome"] == "alarm"
    assert alarms <= 200 * 0.2 + 3 * math.sqrt(200 * 0.2 * 0.8), alarms


@pytest.mark.slow
def test_the_mix_is_named_where_it_is_the_reason_and_not_otherwise() -> None:
    """Of 100 alarms after a change of the mix alone at least 90 are explained; of 100 with a change within subjects at most 5 are."""
    named = {}
    for fall in (0.0, 1.2):
        live = (seen(calibrate(asked(1500, OLD, seed)), asked(1000, NEW, 70_000 + seed, fall), 0.01) for seed in range(100))
        found = [mix_change(watch, 0.02) for watch in live]
        named[fall] = sum(bool(one and one.shares) for one in found)
    assert named[0.0] >= 90 and named[1.2] <= 5, named


def test_a_log_of_an_earlier_form_is_read_without_subjects(tmp_path: Path) -> None:
    """A log without the column keeps working with a predictor that knows subjects; nothing is said of the mix."""
    calibrate(asked(1000, OLD, 1)).save(tmp_path / "p.json")
    path = log(tmp_path / "live.parquet", asked(500, NEW, 2))
    pl.read_parquet(path).drop("subject").write_parquet(path)
    assert read_log(path, Predictor.load(tmp_path / "p.json")).subject is None
    done = CliRunner().invoke(main, ["monitor", "--predictor", str(tmp_path / "p.json"), "--log", str(path)])
    assert done.exit_code == 1 and "mix of subjects" not in done.stderr
