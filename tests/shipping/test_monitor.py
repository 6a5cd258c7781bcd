"""`analyze monitor`: quiet while nothing changes, an alarm when questions or coverage move, and no row counted twice."""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from analyzer_data import skilled_logits
from click.testing import CliRunner
from first_line import after_first_line
from scipy.special import betaln
from shipping import data_set, made, rewritten

from analyzer.api import calibrate, monitor
from analyzer.cli.main import main
from analyzer.predictor import Predictor
from analyzer.predictor.document import Threshold
from analyzer.studies.cost import Prices
from analyzer.watch.betting import AT_ONCE, LATER, Bets
from analyzer.watch.exchangeability import live_p_values, slope_factors
from analyzer.watch.live_log import read_log
from analyzer.watch.miscoverage import MissWatch, miss_share_range, odds_factors
from analyzer.watch.monitor import Watch
from schemas.errors import UsageError


def live(path: Path, n: int, *, seed: int = 1, skill: float = 1.5, answered: bool = True, **columns: Any) -> Path:
    """A log of questions like those of `data_set`, or harder ones."""
    rng = np.random.default_rng(seed)
    answers = rng.integers(0, 3, n)
    logits = skilled_logits(rng, answers, 4, skill)
    data = {"id": [f"q{seed}-{i}" for i in range(n)]} | {f"logit_{letter}": logits[:, j].tolist() for j, letter in enumerate("ABCD")}
    data["logit_D"] = [None if i % 7 == 0 else value for i, value in enumerate(data["logit_D"])]
    if answered:
        data["answer"] = ["ABC"[one] for one in answers]
    frame = pl.DataFrame(data | columns)
    if path.suffix == ".csv":
        frame.write_csv(path)
    else:
        frame.write_parquet(path)
    return path


def run(folder: Path, log: Path, *words: str) -> Any:
    made().save(folder / "p.json")
    return CliRunner().invoke(main, ["monitor", "--predictor", str(folder / "p.json"), "--log", str(log), *words])


def test_bets_are_the_sum_over_all_starts() -> None:
    """The recursion is the mixture that it stands for: half of the capital at once, later starts from what is left in cash."""
    rng = np.random.default_rng(0)
    factors = slope_factors(rng.random(40))
    bets = Bets(factors.shape[1])
    for row in factors:
        bets.step(row)
    cash, total = 1.0, 0.0
    for start in range(40):
        put = cash * (AT_ONCE if start == 0 else LATER / (start + 1))
        cash -= put
        total += put * factors[start:].prod(axis=0).mean()
    assert float(bets.total) == pytest.approx(total + cash, rel=1e-12)


def test_a_bet_wins_nothing_on_average() -> None:
    """Each factor has mean 1: over uniform p-values, and over a miss and a hit at the claimed chance."""
    grid = (np.arange(100_000) + 0.5) / 100_000
    assert slope_factors(grid).mean(axis=0) == pytest.approx(np.ones(8), abs=1e-9)
    for chance in (0.01, 0.1, 0.5):
        assert chance * odds_factors(True, chance) + (1 - chance) * odds_factors(False, chance) == pytest.approx(np.ones(5), abs=1e-12)


def test_p_values_are_ranks_among_all_before() -> None:
    """Against a loop over all earlier questions, across the pieces in which they are found."""
    rng = np.random.default_rng(1)
    calibration, bins, u = rng.integers(0, 9, 60), rng.integers(0, 9, 600), rng.random(600)
    found = live_p_values(np.bincount(calibration, minlength=256), bins, u)
    seen = calibration.tolist()
    for t, value in enumerate(bins.tolist()):
        seen.append(value)
        expected = (sum(one > value for one in seen) + u[t] * seen.count(value)) / len(seen)
        assert found[t] == pytest.approx(expected, rel=1e-12)


def test_misses_follow_polyas_urn() -> None:
    """The chance of a miss given the past is that of a calibration score and live ones in random order: 200,000 simulated orders."""
    rng, n, k, n_live = np.random.default_rng(2), 9, 8, 4
    order = rng.random((200_000, n + n_live))
    threshold = np.sort(order[:, :n], axis=1)[:, k - 1]
    misses = order[:, n:] > threshold[:, None]
    for pattern in ([0, 0, 0], [1, 0, 1], [1, 1, 1]):
        same = (misses[:, :3] == np.array(pattern, dtype=bool)).all(axis=1)
        expected = (n + 1 - k + sum(pattern)) / (n + 1 + 3)
        assert misses[same, 3].mean() == pytest.approx(expected, abs=5 * math.sqrt(0.25 / same.sum()))


def test_range_of_misses_is_where_the_mixture_has_not_won() -> None:
    """Its ends are where the likelihood ratio of the mixture reaches 1 / delta; without misses the lower end is 0."""
    for misses, n in ((0, 50), (7, 80), (80, 80), (120, 1000)):
        low, high = miss_share_range(misses, n, 0.05)
        for end in {low, high} - {0.0, 1.0}:
            ratio = betaln(misses + 0.5, n - misses + 0.5) - betaln(0.5, 0.5) - misses * math.log(end) - (n - misses) * math.log1p(-end)
            assert ratio == pytest.approx(math.log(20), abs=1e-6)
        assert low <= misses / n <= high
    assert miss_share_range(0, 50, 0.05).low == 0.0 and miss_share_range(80, 80, 0.05).high == 1.0
    assert miss_share_range(0, 0, 0.05) == (0.0, 1.0)


def test_fresh_questions_hold(tmp_path: Path) -> None:
    """8,000 questions from the same law: no alarm, coverage known to hold, exit 0; 50 of them are not enough, exit 3."""
    done = run(tmp_path, live(tmp_path / "live.parquet", 8000), "--format", "json")
    assert done.exit_code == 0, done.output
    records = {(one["check"], one["group"]): one for one in json.loads(done.stdout)}
    assert records["misses", "all"]["result"] == "holds" and records["top_prob", "all"]["result"] == "quiet"
    assert records["set size", "all"]["live"] == pytest.approx(records["set size", "all"]["calibrated"], abs=0.15)
    assert run(tmp_path, live(tmp_path / "few.parquet", 50)).exit_code == 3


def test_without_answers_a_shift_of_the_questions_is_an_alarm(tmp_path: Path) -> None:
    """Questions of which the model knows less move its top prob: exit 1 with what moved, from what to what, and since when."""
    data = pl.concat([pl.read_parquet(live(tmp_path / f"{i}.parquet", 600, seed=i, skill=s)) for i, s in ((1, 1.5), (2, 0.0))])
    data.drop("answer").write_parquet(tmp_path / "live.parquet")
    done = run(tmp_path, tmp_path / "live.parquet", "--format", "json")
    assert done.exit_code == 1, done.output
    top = next(one for one in json.loads(done.stdout) if one["check"] == "top_prob")
    assert top["result"] == "alarm" and top["live"] < top["calibrated"]
    began = int(top["began"].removeprefix("live.parquet row "))
    assert 500 < began < 720
    assert "monitor: alarm after 1,200 questions, 0 with answers; moved: " in done.stderr
    quiet = live(tmp_path / "quiet.parquet", 600, answered=False)
    assert run(tmp_path, quiet).exit_code == 0
    assert run(tmp_path, live(tmp_path / "short.parquet", 60, answered=False)).exit_code == 3


def test_answers_show_a_loss_of_coverage_that_no_statistic_shows(tmp_path: Path) -> None:
    """Shuffled answers leave the questions as they look; only the misses tell."""
    path = live(tmp_path / "live.parquet", 400)
    frame = pl.read_parquet(path)
    frame.with_columns(answer=frame["answer"].shuffle(seed=1)).write_parquet(path)
    done = run(tmp_path, path, "--format", "json")
    assert done.exit_code == 1, done.output
    alarms = {one["check"] for one in json.loads(done.stdout) if one["result"] == "alarm"}
    assert alarms == {"exchangeable misses"}


def test_the_tolerance_says_what_still_holds(tmp_path: Path) -> None:
    """400 questions decide coverage with a tolerance of 0.2 and not with none; a tolerance that no one can mean is exit 2."""
    path = live(tmp_path / "live.parquet", 400)
    results = {}
    for tolerance in ("0.2", "0"):
        done = run(tmp_path, path, "--format", "json", "--coverage-tolerance", tolerance)
        records = {(one["check"], one["group"]): one["result"] for one in json.loads(done.stdout)}
        results[tolerance] = records["misses", "all"], done.exit_code
    assert results == {"0.2": ("holds", 0), "0": ("not enough yet", 3)}
    assert "; the answers so far do not show that coverage holds" in done.stderr
    pl.read_parquet(path).drop("answer").write_parquet(path)
    assert "monitor: not enough yet after 400 questions, 0 with answers; 500 without an alarm are enough" in run(tmp_path, path).stderr
    for tolerance in ("nan", "-0.1", "inf", "2"):
        done = run(tmp_path, path, "--coverage-tolerance", tolerance)
        assert done.exit_code == 2 and "tolerance of coverage" in done.output


def test_groups_are_counted_apart(tmp_path: Path) -> None:
    """A group whose sets miss too often is named; its misses and those of the rest add up."""
    path = live(tmp_path / "live.parquet", 2000)
    frame = pl.read_parquet(path).with_columns(group=pl.Series(["old" if i % 2 else "new" for i in range(2000)]))
    shuffled = frame["answer"].shuffle(seed=1)
    frame.with_columns(answer=pl.when(pl.col("group") == "new").then(shuffled).otherwise(pl.col("answer"))).write_parquet(path)
    made().save(tmp_path / "p.json")
    found = monitor(tmp_path / "p.json", path).filter(check="misses")
    rows = {row["group"]: row for row in found.to_dicts()}
    assert rows["group new"]["result"] == "above" and rows["group old"]["result"] != "above"
    total = sum(round(rows[f"group {name}"]["live"] * rows[f"group {name}"]["n_items"]) for name in ("old", "new"))
    assert total == round(rows["all"]["live"] * rows["all"]["n_items"])


def test_cost_is_laid_beside_what_was_promised(tmp_path: Path) -> None:
    """With prices the cost of 1,000 questions comes from the live decisions: counted by hand here."""
    predictor = made(prices=Prices(answer=1.0, ask_again=2.0, review=5.0, abstain=3.0, wrong=10.0))
    path = live(tmp_path / "live.parquet", 300)
    rows = pl.read_parquet(path)
    found = {row["check"]: row["live"] for row in monitor(predictor, path).to_dicts() if row["group"] == "all"}
    total = 0.0
    for row in rows.to_dicts():
        logits = [row[f"logit_{letter}"] for letter in "ABCD" if row[f"logit_{letter}"] is not None]
        inside = predictor.names(predictor.predict(logits, n_options=len(logits)))
        total += [3.0, 1.0, 2.0, 5.0, 5.0][len(inside)] + (10.0 if len(inside) == 1 and inside != (row["answer"],) else 0.0)
    assert found["cost per 1,000"] == pytest.approx(1000 * total / 300)


def test_nights_together_are_one_long_night(tmp_path: Path) -> None:
    """A log that grows over three calls with a state file ends as one call does, to the last digit; answers may come later."""
    whole = pl.read_parquet(live(tmp_path / "live.parquet", 900, skill=1.0))
    made().save(tmp_path / "p.json")
    at_once = monitor(tmp_path / "p.json", tmp_path / "live.parquet")
    for end in (300, 301, 900):
        whole[:end].write_parquet(tmp_path / "live.parquet")
        last = monitor(tmp_path / "p.json", tmp_path / "live.parquet", state=tmp_path / "state.json")
    assert last.to_dicts() == at_once.to_dicts()
    again = monitor(tmp_path / "p.json", tmp_path / "live.parquet", state=tmp_path / "state.json")
    assert again.to_dicts() == at_once.to_dicts()


def test_answers_may_come_later(tmp_path: Path) -> None:
    """Rows with id and answer alone complete earlier questions, in the same log or another night's."""
    whole = pl.read_parquet(live(tmp_path / "live.parquet", 200))
    made().save(tmp_path / "p.json")
    at_once = monitor(tmp_path / "p.json", tmp_path / "live.parquet")
    whole.with_columns(answer=pl.lit(None, pl.String)).write_parquet(tmp_path / "questions.parquet")
    late = whole.with_columns(**{f"logit_{letter}": pl.lit(None, pl.Float64) for letter in "ABCD"})
    late.write_parquet(tmp_path / "answers.parquet")
    state = tmp_path / "state.json"
    assert monitor(tmp_path / "p.json", tmp_path / "questions.parquet", state=state).filter(check="misses").is_empty()
    after = monitor(tmp_path / "p.json", tmp_path / "answers.parquet", state=state)
    numbers = [name for name in at_once.columns if name != "began"]
    assert after.select(numbers).to_dicts() == at_once.select(numbers).to_dicts()


HEADER = "id,logit_A,logit_B,logit_C,logit_D,answer\n"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("q1,1,2,3,4,A\nq1,1,2,3,4,A\n", "row 2 repeats question 'q1' of row 1"),
        ("q1,1,2,3,4,A\nq1,1,2,3,4,B\n", "row 2 says that the answer of 'q1' is B, but row 1 says A"),
        ("q1,1,2,3,4,\nq1,,,,,B\nq1,,,,,C\n", "row 3 says that the answer of 'q1' is C, but row 2 says B"),
        ("q1,1,2,3,4,\nq1,,,,,B\nq1,,,,,B\n", "row 3 repeats question 'q1' of row 2"),
        ("q1,1,2,3,4,\nq1,1,2,3,4,\n", "row 2 repeats question 'q1'"),
        ("q1,,,,,B\n", "answers question 'q1', which was not logged before it"),
        ("q1,1,2,3,,\nq1,,,,,D\n", "none of its question's options"),
        ("q1,1,,3,4,A\n", "lacks the logit of an option before its last"),
        ("q1,,,,,\n", "neither logits nor an answer"),
        (",1,2,3,4,A\n", "row 1 has nothing in column id"),
    ],
)
def test_a_log_that_would_be_counted_wrongly_is_refused(rows: str, said: str, tmp_path: Path) -> None:
    """Duplicates, contradictions and gaps end the command with one sentence, exit 2, and leave the state as it was."""
    (tmp_path / "live.csv").write_text(HEADER + rows)
    done = run(tmp_path, tmp_path / "live.csv", "--state", str(tmp_path / "state.json"))
    assert done.exit_code == 2 and said in done.output, done.output
    assert not (tmp_path / "state.json").exists()


@pytest.mark.parametrize("known", [True, False])
def test_an_answer_cannot_move_its_question_to_another_group(known: bool, tmp_path: Path) -> None:
    """A row that adds an answer and names another group than its question had is refused, in one log and over two."""
    made().save(tmp_path / "p.json")
    header, asked, answered = HEADER.replace("\n", ",group\n"), "q1,1,2,3,4,,new\n", "q1,,,,,A,old\n"
    (tmp_path / "one.csv").write_text(header + asked + answered * known)
    (tmp_path / "two.csv").write_text(header + answered)
    with pytest.raises(UsageError, match="the group of 'q1' is 'old', but it was logged with 'new'"):
        for name in ("one.csv", "two.csv"):
            monitor(tmp_path / "p.json", tmp_path / name, state=tmp_path / "s.json")


def test_a_copy_of_a_log_without_ids_is_refused(tmp_path: Path) -> None:
    """A log that was renamed and has grown holds questions that were counted; with ids each of them would be known."""
    made().save(tmp_path / "p.json")
    frame = pl.read_parquet(live(tmp_path / "a.parquet", 40)).drop("id")
    frame[:30].write_parquet(tmp_path / "a.parquet")
    frame.write_parquet(tmp_path / "b.parquet")
    frame[30:].write_parquet(tmp_path / "c.parquet")
    monitor(tmp_path / "p.json", tmp_path / "a.parquet", state=tmp_path / "s.json")
    with pytest.raises(UsageError, match=r"b\.parquet row 30 is the last row that was read of a\.parquet"):
        monitor(tmp_path / "p.json", tmp_path / "b.parquet", state=tmp_path / "s.json")
    monitor(tmp_path / "p.json", tmp_path / "c.parquet", state=tmp_path / "s.json")


def test_rows_of_a_later_night_are_named_by_their_place_in_the_whole_log(tmp_path: Path) -> None:
    """Row 3 is row 3 although only it is new; it must not be earlier than row 2 of the night before."""
    made().save(tmp_path / "p.json")
    header, rows = HEADER.replace("\n", ",time\n"), "q1,1,2,3,4,A,2026-01-02\nq2,1,2,3,4,A,2026-01-03\n"
    for new, said in ((",1,2,3,4,A,2026-01-04\n", "row 3 has nothing in column id"), ("q3,1,2,3,4,A,2026-01-01\n", "row 3 is earlier")):
        for text in (rows, rows + new):
            (tmp_path / "live.csv").write_text(header + text)
            if text == rows:
                monitor(tmp_path / "p.json", tmp_path / "live.csv", state=tmp_path / "s.json")
        with pytest.raises(UsageError, match=said):
            monitor(tmp_path / "p.json", tmp_path / "live.csv", state=tmp_path / "s.json")


def test_an_answer_cannot_change_overnight(tmp_path: Path) -> None:
    """What another night's log says of a question that was answered is compared, by its id."""
    made().save(tmp_path / "p.json")
    (tmp_path / "one.csv").write_text(HEADER + "q1,1,2,3,4,A\n")
    (tmp_path / "two.csv").write_text(HEADER + "q1,1,2,3,4,B\n")
    monitor(tmp_path / "p.json", tmp_path / "one.csv", state=tmp_path / "s.json")
    with pytest.raises(UsageError, match=r"two\.csv row 1 says that the answer of 'q1' is B, but an earlier log says A"):
        monitor(tmp_path / "p.json", tmp_path / "two.csv", state=tmp_path / "s.json")


def test_a_state_or_a_log_that_is_another_is_refused(tmp_path: Path) -> None:
    """A log that shrank or was rewritten, a state of another predictor or delta, a state edited by hand."""
    made().save(tmp_path / "p.json")
    made(alpha="0.2").save(tmp_path / "other.json")
    state, log = tmp_path / "s.json", tmp_path / "live.csv"
    log.write_text(HEADER + "q1,1,2,3,4,A\nq2,1,2,3,4,A\n")
    monitor(tmp_path / "p.json", log, state=state)
    for predictor, options, said in (("other.json", {}, "another predictor"), ("p.json", {"delta": 0.05}, "another delta")):
        with pytest.raises(UsageError, match=said):
            monitor(tmp_path / predictor, log, state=state, **options)
    log.write_text(HEADER + "q1,1,2,3,4,A\nq9,1,2,3,4,A\nq3,1,2,3,4,A\n")
    with pytest.raises(UsageError, match="row 2 is not what it was"):
        monitor(tmp_path / "p.json", log, state=state)
    log.write_text(HEADER + "q1,1,2,3,4,A\n")
    with pytest.raises(UsageError, match="has 1 rows, but 2 were read before"):
        monitor(tmp_path / "p.json", log, state=state)
    state.write_text(state.read_text().replace('"n": 2', '"n": 3'))
    with pytest.raises(UsageError, match="changed after it was written"):
        monitor(tmp_path / "p.json", log, state=state)
    with pytest.raises(UsageError, match="delta is 0"):
        monitor(tmp_path / "p.json", log, delta=0.0)


def test_two_monitors_of_one_state_lose_no_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A monitor that comes while another reads is refused, exit 5; asked again it adds its questions, and none is lost or counted twice."""
    first, second, state = live(tmp_path / "a.parquet", 30), live(tmp_path / "b.parquet", 20, seed=2), tmp_path / "s.json"
    made().save(tmp_path / "p.json")
    (tmp_path / "link.json").symlink_to(state)
    refused: list[Any] = []

    def monitored(log: Path, name: str = "s.json") -> Any:
        words = ["monitor", "--predictor", str(tmp_path / "p.json"), "--log", str(log), "--state", str(tmp_path / name)]
        return CliRunner().invoke(main, words)

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        monkeypatch.undo()
        refused.extend(monitored(second, name) for name in ("s.json", "link.json"))
        return read_log(*arguments, **options)

    monkeypatch.setattr("analyzer.watch.monitor.read_log", meanwhile)
    assert "after 30 questions" in monitored(first).stderr
    assert [done.exit_code for done in refused] == [5, 5]
    assert all("another monitor is using the state" in done.output for done in refused)
    assert "after 50 questions" in monitored(second).stderr
    assert "after 50 questions" in monitored(first).stderr


def monitored(folder: Path, log: Path) -> Any:
    """Run the command with the predictor p.json and the state s.json of a folder."""
    words = ["--predictor", str(folder / "p.json"), "--log", str(log), "--state", str(folder / "s.json")]
    return CliRunner().invoke(main, ["monitor", *words])


def test_a_full_disk_leaves_the_state_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 5 and one sentence; with room again the questions count once, as in a call that was never disturbed."""
    made().save(tmp_path / "p.json")
    first, second, state = live(tmp_path / "a.parquet", 30), live(tmp_path / "b.parquet", 20, seed=2), tmp_path / "s.json"
    assert monitored(tmp_path, first).exit_code == 3
    before = state.read_bytes()

    def full(path: Path, content: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        done = monitored(tmp_path, second)
    assert done.exit_code == 5 and "No space left on device" in done.stderr and len(after_first_line(done.stderr)) == 1
    assert state.read_bytes() == before and not list(tmp_path.glob(".s.json.????????"))
    assert "after 50 questions" in monitored(tmp_path, second).stderr


def test_a_monitor_that_is_killed_while_it_writes_is_as_if_it_had_not_run(tmp_path: Path) -> None:
    """The state is the old one, whole; nobody waits for the dead one's lock, and its questions count once."""
    made().save(tmp_path / "p.json")
    first, second, state = live(tmp_path / "a.parquet", 30), live(tmp_path / "b.parquet", 20, seed=2), tmp_path / "s.json"
    assert monitored(tmp_path, first).exit_code == 3
    before = state.read_bytes()
    words = ["monitor", "--predictor", str(tmp_path / "p.json"), "--log", str(second), "--state", str(state)]
    program = (
        "import os, pathlib, signal; from analyzer.cli.main import main; "
        f"pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL); main({words!r})"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, capture_output=True).returncode == -signal.SIGKILL
    assert state.read_bytes() == before
    assert "after 50 questions" in monitored(tmp_path, second).stderr


def test_a_state_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """The folder is not made by the way: exit 2, before the log is read."""
    done = run(tmp_path, tmp_path / "no.parquet", "--state", str(tmp_path / "none" / "s.json"))
    assert done.exit_code == 2 and "no folder that can be written to" in done.output and not (tmp_path / "none").exists()


def test_the_watch_needs_every_value(tmp_path: Path) -> None:
    """Bounds will not do: questions whose values are all known are not like those that calibrated."""
    made().save(tmp_path / "p.json")
    (tmp_path / "live.csv").write_text("logit_A,logit_B,logit_C,logit_D,at_most\n1,2,3,4,\n1,,,,0\n")
    with pytest.raises(UsageError, match="row 2 lacks values"):
        monitor(tmp_path / "p.json", tmp_path / "live.csv")


def test_option_mass_is_watched_only_while_it_is_known(tmp_path: Path) -> None:
    """Against a loop over the questions; a log with one infinite log-sum-exp is refused after one whose values are all finite."""
    path = rewritten(tmp_path / "p.json", made(), lambda value: value["looks"].update(option_mass=[1] * 256) or value["subjects"].clear())
    predictor = Predictor.load(path)
    watch = Watch(predictor, 0.01)
    live(tmp_path / "plain.parquet", 50)
    frame = pl.read_parquet(tmp_path / "plain.parquet")
    values = frame.select([f"logit_{letter}" for letter in "ABCD"]).to_numpy()
    total = np.nansum(np.exp(values), axis=1) * np.exp(np.linspace(0.1, 2, 50))
    frame.with_columns(logsumexp=np.log(total)).write_parquet(tmp_path / "known.parquet")
    watch.see(read_log(tmp_path / "known.parquet", predictor))
    expected = np.zeros(256, dtype=int)
    for row, whole_vocabulary in zip(values, total, strict=True):
        expected[int(256 * sum(math.exp(value) for value in row if not np.isnan(value)) / whole_vocabulary)] += 1
    assert watch.looks is not None
    assert watch.looks["option_mass"].live[0].tolist() == expected.tolist()
    small = np.where(np.arange(50) == 3, np.nanmax(values, axis=1) - 0.5, np.log(total))
    frame.with_columns(id=pl.col("id") + "y", logsumexp=small).write_parquet(tmp_path / "small.parquet")
    with pytest.raises(UsageError, match="row 4 has a logsumexp below that of its options alone"):
        watch.see(read_log(tmp_path / "small.parquet", predictor))
    total[3] = math.inf
    frame.with_columns(id=pl.col("id") + "x", logsumexp=np.log(total)).write_parquet(tmp_path / "infinite.parquet")
    with pytest.raises(UsageError, match="no finite logsumexp in every row"):
        watch.see(read_log(tmp_path / "infinite.parquet", predictor))


def test_ties_are_placed_at_random_and_counted_as_they_are() -> None:
    """Scores that equal the threshold count as hits, and take part in the test by their tags; a mixed law stays a fair bet."""
    rng = np.random.default_rng(3)
    final = []
    for seed in range(300):
        calibration = np.sort(rng.integers(0, 4, 19))
        value = float(calibration[17])
        one = Threshold(None, value, 18, 19, int((calibration < value).sum()), int((calibration == value).sum()))
        watch = MissWatch(one, seed)
        for score in rng.integers(0, 4, 30).tolist():
            watch.see(float(score), score > value, "")
        final.append((watch.placed / 30, watch.misses / 30))
    placed, missed = np.array(final).T
    assert placed.mean() == pytest.approx(0.1, abs=5 * placed.std() / math.sqrt(300))
    assert (placed >= missed).all()


def first_alarms(make: Any, n_streams: int, n: int, limit: float) -> np.ndarray:
    """The question at which each stream's e-value reaches the limit; n where it never does. `make()` gives (stream, question, bet)."""
    factors = make()
    bets = Bets(factors.shape[2], (n_streams,))
    first = np.full(n_streams, n)
    for t in range(n):
        bets.step(factors[:, t])
        first = np.where((first == n) & (bets.highest >= limit), t, first)
    return first


def look_streams(rng: np.random.Generator, n_streams: int, n: int, shift: float, start: int) -> np.ndarray:
    """Factors of streams whose statistic moves by `shift` standard deviations from question `start` on; 1,000 calibration questions."""
    p = np.empty((n_streams, n))
    for stream in range(n_streams):
        values = rng.normal(size=1000 + n)
        values[1000 + start :] += shift
        bins = np.clip((values + 4) * 32, 0, 255).astype(np.int64)
        p[stream] = live_p_values(np.bincount(bins[:1000], minlength=256), bins[1000:], rng.random(n))
    return slope_factors(p)


def miss_streams(rng: np.random.Generator, n_streams: int, n: int, miss: float | None, start: int) -> np.ndarray:
    """Factors of streams under a threshold of 1,000 calibration scores at alpha 0.1; from `start` on the share of misses is `miss`."""
    k = 901
    own = rng.beta(1001 - k, k, n_streams)[:, None]  # each calibration set's own share of misses
    chance = np.broadcast_to(own, (n_streams, n)).copy()
    if miss is not None:
        chance[:, start:] = miss
    missed = rng.random((n_streams, n)) < chance
    before = np.cumsum(missed, axis=1) - missed
    return odds_factors(missed, (1001 - k + before) / (1001 + np.arange(n)))


@pytest.mark.slow
@pytest.mark.parametrize("streams", [look_streams, miss_streams])
def test_false_alarms_stay_below_delta_at_any_time(streams: Any) -> None:
    """2,000 streams of 2,000 exchangeable questions: at most delta of them ever reach 1 / delta, looked at after every question."""
    rng = np.random.default_rng(4)
    for delta in (0.05, 0.2):
        first = first_alarms(lambda: streams(rng, 2000, 2000, 0.0 if streams is look_streams else None, 0), 2000, 2000, 1 / delta)
        alarms = int((first < 2000).sum())
        assert alarms <= 2000 * delta + 3 * math.sqrt(2000 * delta * (1 - delta)), (delta, alarms)


@pytest.mark.slow
def test_a_watch_of_sound_predictors_is_quiet() -> None:
    """100 predictors of 300 items each watch 300 questions with answers from the same law: alarms stay within delta 0.2."""
    alarms = 0
    for seed in range(100):
        predictor: Predictor = calibrate(data_set(300, seed=1000 + seed))
        watch = Watch(predictor, 0.2)
        data = data_set(300, seed=5000 + seed)
        logits, answers = data["logits"].to_numpy().astype(float), data["answer"].to_numpy()
        from analyzer.watch.live_log import LiveLog
        from analyzer.watch.report import report

        n_options = (~np.isnan(logits)).sum(axis=1)
        nan = np.full(300, np.nan)
        watch.see(LiveLog("x", 1, None, logits, n_options, nan, answers, None, None, None, None))
        alarms += report(watch, 0.02)[0]["outcome"] == "alarm"
    assert alarms <= 100 * 0.2 + 3 * math.sqrt(100 * 0.2 * 0.8), alarms
