"""The runtime: sets bit for bit those of `analyze`, bounds where values are missing, refusals, and no import but numpy."""

import json
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from shipping import data_set, made, rewritten

from analyzer.api import calibrate, predict, view_of
from analyzer.cli.main import main
from analyzer.conformal.ranks import rank_scores
from analyzer.measure.question import Question
from analyzer.measure.scored import scores_of
from analyzer.measure.temperature import tempered_probs
from analyzer.predictor import Predictor
from analyzer.predictor.partial import BOUNDS, ROUNDING
from analyzer.scorers import RANDOM, SCORERS
from analyzer.stats.arrays import FloatArray
from analyzer.watch.live_log import read_log
from schemas.errors import UsageError

DETERMINISTIC = [name for name in SCORERS if name not in RANDOM]


def test_the_runtime_imports_numpy_and_nothing_else() -> None:
    """A server carries numpy and the standard library; every other package that is installed stays out."""
    code = (
        "import sys; import numpy; import analyzer.predictor; "
        "print(sorted({name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names - {'numpy', '__main__'}))"
    )
    program = f"import sys; sys.path[:0] = {sys.path!r}; {code}"
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['analyzer', 'schemas']"


def test_the_runtime_starts_without_what_is_slow_to_import(tmp_path: Path) -> None:
    """Loading and applying a predictor brings no module that took a tenth of the start or more and is not needed."""
    made().save(tmp_path / "p.json")
    slow = {"pathlib", "urllib", "ipaddress", "dataclasses", "inspect", "datetime", "importlib.metadata", "tempfile"}
    code = (
        "import sys; import numpy; before = set(sys.modules); from analyzer.predictor import Predictor; "
        f"Predictor.load({str(tmp_path / 'p.json')!r}).decide([1.0, 2.0, 3.0, 4.0]); print(sorted(({slow!r} & set(sys.modules)) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("reliability", ["none", "temperature"])
@pytest.mark.parametrize("scorer", DETERMINISTIC)
@pytest.mark.parametrize("width", [4, 9])
def test_sets_are_those_of_analyze_bit_for_bit(scorer: str, reliability: str, width: int) -> None:
    """Ranking fresh scores among the calibration scores as `analyze` does gives the same sets, in batches and row by row."""
    data, fresh = data_set(300, width), view_of(data_set(200, width, seed=1))
    predictor = calibrate(data, scorer=scorer, reliability=reliability, alpha=0.2)
    one, temperature = predictor.document.thresholds[0], predictor.document.temperature
    view = view_of(data)
    probs, fresh_probs = (tempered_probs(part, temperature) if reliability != "none" else part.probs for part in (view, fresh))
    question = Question()
    calibration = scores_of(view, probs, scorer, question)[np.arange(view.n_items), view.answer]
    if reliability != "none":  # the items that fitted the temperature do not calibrate
        from analyzer.ship.calibrate import _fitted

        calibration = calibration[~_fitted(view.n_items)]
    ranks = rank_scores(scores_of(fresh, fresh_probs, scorer, question), fresh.answer, fresh_probs, "keep", calibration)
    expected = (ranks.option <= one.k - 1).T
    assert np.array_equal(predictor.predict(fresh.logits, n_options=fresh.n_options), expected)
    alone = [predictor.predict(row[:n], n_options=int(n)) for row, n in zip(fresh.logits, fresh.n_options, strict=True)]
    assert all(np.array_equal(row, wanted[: len(row)]) for row, wanted in zip(alone, expected, strict=True))
    columns = np.asfortranarray(fresh.logits)
    assert np.array_equal(predictor.predict(columns, n_options=fresh.n_options), expected)


def test_a_shift_of_all_logits_changes_nothing() -> None:
    """Log-probabilities do as well as logits: only differences count."""
    predictor, logits = made(), np.random.default_rng(3).normal(size=(500, 4))
    assert np.array_equal(predictor.predict(logits), predictor.predict(logits - 8))


def test_the_top_option_is_put_into_empty_sets_where_asked() -> None:
    """`empty` top1 leaves no set empty, and every other set as it is."""
    logits = np.random.default_rng(4).normal(size=(500, 4)) / 4
    kept, filled = (calibrate(data_set(400, skill=6.0), alpha=0.3, empty=empty).predict(logits) for empty in ("keep", "top1"))
    assert not kept.any(axis=1).all() and filled.any(axis=1).all()
    assert np.array_equal(kept[kept.any(axis=1)], filled[kept.any(axis=1)])
    assert (filled.argmax(axis=1) == logits.argmax(axis=1))[~kept.any(axis=1)].all()


def test_decisions_follow_the_size_of_the_set() -> None:
    """None abstains, one is answered, two are asked again, more are reviewed."""
    predictor, logits = made(), np.random.default_rng(5).normal(size=(500, 4)) * 3
    size = predictor.predict(logits).sum(axis=1)
    wanted = np.array(["abstain", "answer", "ask again", "review", "review"])[size]
    assert set(wanted) >= {"answer", "ask again", "review"}
    assert (predictor.decide(logits) == wanted).all()
    assert predictor.decide(logits[0]) == wanted[0]


@pytest.mark.parametrize(
    ("logits", "options", "said"),
    [
        ([1.0, np.nan, 0.0, 0.0], {}, "row 0 has a logit that is NaN"),
        ([1.0, np.inf, 0.0, 0.0], {}, "NaN or infinite"),
        ([[0.0] * 4, [0.0, -np.inf, 0.0, 0.0]], {}, "row 1"),
        ([1.0, 0.0, 0.0], {}, "rows have 3 logits, the predictor 4 options"),
        ([1.0] * 5, {}, "rows have 5 logits"),
        ([1.0, 0.0, 0.0], {"n_options": 4}, "has 4 options; expected 2 to 3"),
        ([1.0, 0.0, 0.0, 0.0], {"n_options": 1}, "has 1 options"),
        ([1.0, 0.0, 0.0, 0.0], {"n_options": 2.5}, "whole number"),
        ([[0.0] * 4] * 3, {"n_options": [4, 4]}, "whole number for each of 3 rows"),
        ([1.0, 0.0, 0.0, 0.0], {"subject": "law"}, "leave the subject out"),
        ([["a", "b"]], {}, "no rectangle of numbers"),
        ([[0.0, 1.0], [0.0]], {}, "no rectangle of numbers"),
        (1.0, {}, "have shape"),
    ],
)
def test_what_is_no_question_is_refused(logits: Any, options: dict[str, Any], said: str) -> None:
    """NaN, infinity and shapes that do not fit are refused with the row, never judged."""
    with pytest.raises(UsageError, match=said):
        made().predict(logits, **options)


def test_no_questions_give_no_sets() -> None:
    """An empty batch is answered with an empty one."""
    predictor = made()
    assert predictor.predict(np.zeros((0, 4))).shape == (0, 4)
    assert predictor.decide(np.zeros((0, 4))).shape == (0,)


def completions(values: np.ndarray, missing: np.ndarray, at_most: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Values that the missing log-probabilities may have: none, all of the bound, every order just below it, and random ones."""
    found = []
    places = np.flatnonzero(missing)
    steps = [at_most - 1e-9 * np.array(order) for order in permutations(range(len(places)))]
    random = [at_most - rng.exponential(2.0, len(places)) for _ in range(20)]
    for filling in [np.full(len(places), at_most), np.full(len(places), -1e4), *steps, *random]:
        row = values.copy()
        row[places] = filling
        found.append(row)
    return found


@pytest.mark.parametrize("scorer", BOUNDS)
def test_missing_values_cannot_bring_an_option_in_or_out_of_the_bounds(scorer: str) -> None:
    """Whatever the missing values are, the set lies between `certain` and `set`; where `exact` says so it is that one set."""
    predictor, rng = calibrate(data_set(300, 5), scorer=scorer, alpha=0.2), np.random.default_rng(6)
    exact, wide = 0, 0
    for trial in range(150):
        values = np.round(rng.normal(size=5) * (1 + trial % 4), 1)  # one decimal: ties with the bound
        n_missing = int(rng.integers(1, 5))
        missing = np.zeros(5, dtype=bool)
        missing[np.argsort(values, kind="stable")[:n_missing]] = True
        at_most = float(values[~missing].min()) - float(rng.choice([0.0, 0.0, 0.5, 3.0]))
        known = {letter: float(value) for letter, value, gone in zip(predictor.letters, values, missing, strict=True) if not gone}
        partial = predictor.predict_partial(known, at_most)
        sets = [set(predictor.names(predictor.predict(row))) for row in completions(values, missing, at_most, rng)]
        assert all(set(partial.certain) <= one <= set(partial.set) for one in sets), (values, missing, at_most)
        assert not partial.exact or all(one == set(partial.set) for one in sets)
        exact, wide = exact + partial.exact, wide + (not partial.exact)
        tops = [np.nanmax(predictor.judge(row[None]).probs) for row in completions(values, missing, at_most, rng)]
        assert min(tops) >= partial.top_prob - ROUNDING
    assert exact and wide


def squared(probs: FloatArray, u: FloatArray | None = None) -> FloatArray:
    """A scorer as the recipe for contributors adds one: 1 minus the square of the option's probability."""
    return np.asarray(1 - probs**2)


def test_a_scorer_without_bounds_is_told_so_where_a_value_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new scorer predicts complete rows at once; for a row with missing values the message names the table that it must be added to."""
    monkeypatch.setitem(SCORERS, "squared", squared)
    made(scorer="squared").save(tmp_path / "p.json")
    for text, status in (("logit_A,logit_B,logit_C,logit_D\n1,2,3,4\n", 0), ("logit_A,logit_B,logit_C,logit_D,at_most\n-1,,-1,-2,-3\n", 2)):
        (tmp_path / "live.csv").write_text(text)
        done = CliRunner().invoke(main, ["predict", "--predictor", str(tmp_path / "p.json"), "--logits", str(tmp_path / "live.csv")])
        assert done.exit_code == status, done.output
    assert "scorer 'squared' has no bounds for missing log-probabilities" in done.output
    assert "BOUNDS in analyzer/predictor/partial.py" in done.output


def test_lac_bounds_are_reached() -> None:
    """For lac the bounds are the best possible: some values of the missing options give either set."""
    predictor, rng = calibrate(data_set(300, 5), alpha=0.2), np.random.default_rng(7)
    for _ in range(100):
        values = rng.normal(size=5) * 2
        missing = np.zeros(5, dtype=bool)
        missing[np.argsort(values)[:2]] = True
        at_most = float(values[~missing].min()) - 0.3
        known = {letter: float(value) for letter, value, gone in zip(predictor.letters, values, missing, strict=True) if not gone}
        partial, possible, certain = predictor.predict_partial(known, at_most), set(), set("ABCDE")
        for one, other in ((at_most, at_most), (-1e4, -1e4), (at_most, -1e4), (-1e4, at_most)):
            row = values.copy()
            row[np.flatnonzero(missing)] = one, other
            inside = set(predictor.names(predictor.predict(row)))
            possible, certain = possible | inside, certain & inside
        assert (set(partial.set), set(partial.certain)) == (possible, certain)


def test_nothing_missing_is_the_plain_prediction() -> None:
    """With all values known the set is exact, also for a question of fewer options."""
    predictor = made()
    found = predictor.predict_partial({"A": 1.0, "B": 0.5, "C": -1.0}, at_most=-9.0, n_options=3)
    assert found.exact and found.set == found.certain == predictor.names(predictor.predict([1.0, 0.5, -1.0], n_options=3))


@pytest.mark.parametrize(
    ("known", "at_most", "said"),
    [
        ({}, -1.0, "none of the options was returned"),
        ({"G": 0.0}, -1.0, "no option 'G'"),
        ({"A": -2.0}, -1.0, "below at_most"),
        ({"A": float("nan")}, -1.0, "NaN or infinite"),
        ({"A": 0.0}, float("-inf"), "NaN or infinite"),
    ],
)
def test_impossible_bounds_are_refused(known: dict[str, float], at_most: float, said: str) -> None:
    """A known value below the smallest returned one cannot be; nor a letter of another tokenizer."""
    with pytest.raises(UsageError, match=said):
        made().predict_partial(known, at_most)


def write_log(path: Path, rows: list[dict[str, Any]]) -> Path:
    frame = pl.DataFrame(rows, infer_schema_length=None)
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix == ".csv":
        frame.write_csv(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_command_predicts_what_the_runtime_predicts(suffix: str, tmp_path: Path) -> None:
    """`analyze predict` and `predict` give the runtime's sets, whatever the file's form and the order of its columns."""
    predictor, logits = made(), np.random.default_rng(8).normal(size=(20, 4)) * 2
    predictor.save(tmp_path / "p.json")
    backwards = [dict(zip("DCBA", row[::-1].tolist(), strict=True)) for row in logits]
    rows = [{"id": f"q{i}"} | {f"logit_{letter}": x for letter, x in row.items()} for i, row in enumerate(backwards)]
    log = write_log(tmp_path / f"live.{suffix}", rows)
    done = CliRunner().invoke(main, ["predict", "--predictor", str(tmp_path / "p.json"), "--logits", str(log), "--format", "json"])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert [one["set"].split() for one in printed] == [list(one) for one in predictor.names(predictor.predict(logits))]
    assert [one["decision"] for one in printed] == predictor.decide(logits).tolist()
    assert predict(tmp_path / "p.json", log).to_dicts() == printed


def test_command_bounds_rows_with_missing_values(tmp_path: Path) -> None:
    """A row with at_most gets the set that holds in any case; questions of a number of options never calibrated are counted on stderr."""
    made().save(tmp_path / "p.json")
    text = "logit_A,logit_B,logit_C,logit_D,at_most\n-0.1,,,-9,-9.5\n-0.7,,-0.8,,-0.9\n1,2,,,\n"
    (tmp_path / "live.csv").write_text(text)
    done = CliRunner().invoke(main, ["predict", "--predictor", str(tmp_path / "p.json"), "--logits", str(tmp_path / "live.csv")])
    assert done.exit_code == 0, done.output
    rows = pl.read_csv(done.stdout.encode()).to_dicts()
    assert [(one["set"], one["exact"]) for one in rows[:2]] == [("A", True), ("A B C D", False)]
    assert "1 of 3 questions have another number of options than those that calibrated (3, 4)" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("logit_A,logit_B,logit_C\n1,2,3\n", "the predictor needs logit_A, logit_B, logit_C, logit_D"),
        ("logit_1,logit_2,logit_3,logit_4\n1,2,3,4\n", "has columns logit_1"),
        ("a,b\n1,2\n", "without logits"),
        ("logit_A,logit_B,logit_C,logit_D,colour\n1,2,3,4,red\n", "column 'colour'"),
        ("logit_A,logit_B,logit_C,logit_D\n1,2,3,4\n1,,3,4\n", "row 2 lacks the logit of an option before its last"),
        ("logit_A,logit_B,logit_C,logit_D\n1,2,3,x\n", "not a number"),
        ("logit_A,logit_B,logit_C,logit_D\n1,2,inf,3\n", "row 1 has an infinite logit"),
        ("logit_A,logit_B,logit_C,logit_D\n1,2,nan,3\n", "row 1 lacks the logit"),
        ("logit_A,logit_B,logit_C,logit_D\n1,,,\n", "row 1 has one option"),
        ("logit_A,logit_B,logit_C,logit_D\n,,,\n", "row 1 has no logits"),
        ("logit_A,logit_B,logit_C,logit_D,n_options\n1,2,3,4,3\n", "says a number of options"),
        ("logit_A,logit_B,logit_C,logit_D,answer\n1,2,3,4,E\n", "answer 'E'"),
        ("logit_A,logit_B,logit_C,logit_D,answer\n1,2,3,,D\n", "none of its options"),
        ("logit_A,logit_B,logit_C,logit_D,time\n1,2,3,4,2026-02-01\n1,2,3,4,2026-01-01\n", "row 2 is earlier"),
        ("logit_A,logit_B,logit_C,logit_D,time\n1,2,3,4,10\n1,2,3,4,9\n", "row 2 is earlier"),
        ("logit_A,logit_B,logit_C,logit_D,time\n1,2,3,4,2026-02-01T10:00Z\n1,2,3,4,2026-02-01T10:30+01:00\n", "row 2 is earlier"),
        ("logit_A,logit_B,logit_C,logit_D,time\n1,2,3,4,2026-02-01T10:00Z\n1,2,3,4,2026-02-01T10:30\n", "with and without a time zone"),
        ("logit_A,logit_B,logit_C,logit_D,time\n1,2,3,4,Monday\n", "row 1 has time 'Monday'; expected one such as"),
        ("logit_A,logit_B,logit_C,logit_D,time\n1,2,3,4,1\n1,2,3,4,2026-02-01\n", "row 2 has time '2026-02-01'; expected a number"),
        ("logit_A,logit_B,logit_C,logit_D,id\n1,2,3,4,q\n1,2,3,4,\n", "row 2 has nothing in column id"),
        ("logit_A,logit_B,logit_C,logit_D,at_most\n1,2,3,4,\n1,,,,5\n", "row 2: an option has 1, below at_most 5"),
        ("logit_A,logit_B,logit_C,logit_D\n", "no rows"),
        ("", "live.csv is empty"),
    ],
)
def test_a_log_that_does_not_fit_is_refused(text: str, said: str, tmp_path: Path) -> None:
    """Other letters, gaps, values that are no numbers: one sentence with the row, exit code 2."""
    made().save(tmp_path / "p.json")
    (tmp_path / "live.csv").write_text(text)
    done = CliRunner().invoke(main, ["predict", "--predictor", str(tmp_path / "p.json"), "--logits", str(tmp_path / "live.csv")])
    assert done.exit_code == 2 and said in done.output and not done.stdout, done.output


def test_times_are_compared_as_times(tmp_path: Path) -> None:
    """Seconds 9 and 10, and one moment in two time zones, are in order although their texts are not."""
    for times in (("9", "10"), ("2026-02-01T10:30+01:00", "2026-02-01T10:00Z")):
        rows = "".join(f"1,2,3,4,{time}\n" for time in times)
        (tmp_path / "live.csv").write_text(f"logit_A,logit_B,logit_C,logit_D,time\n{rows}")
        assert read_log(tmp_path / "live.csv", made()).time == list(times)


def test_a_threshold_of_infinity_fills_every_set(tmp_path: Path) -> None:
    """A subject with too few items has threshold inf: its sets are full, by the exact rule and not by a clamp."""
    data = data_set(210)
    data["subject"] = ("item", np.where(np.arange(210) < 5, "tiny", "law"))
    predictor = calibrate(data, by="subject")
    assert {one.subject: one.k <= one.n for one in predictor.document.thresholds} == {"law": True, "tiny": False}
    predictor.save(tmp_path / "p.json")
    assert Predictor.load(tmp_path / "p.json").predict([9.0, 0.0, 0.0, 0.0], subject="tiny").all()
    with pytest.raises(UsageError, match="inf where"):
        Predictor.load(rewritten(tmp_path / "q.json", predictor, lambda v: v["thresholds"][1].update(threshold="1.0")))
