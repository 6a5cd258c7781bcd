"""The panel of live questions: what the monitor knows, on the page, in a paper's tables, and served anew when a log was read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from analyzer_data import skilled_logits
from click.testing import CliRunner
from first_line import after_first_line
from report_stores import FEW, MARKUP, OPTIONS, embedded, family, quiz, study_of, write
from shipping import made

from analyzer.api import monitor
from analyzer.cli.main import main
from analyzer.predictor import Predictor
from analyzer.report.data.tables import first_question_tables, tables
from analyzer.report.data.watched import watch_records
from analyzer.report.page import page
from analyzer.report.papers import paper
from analyzer.report.serve import Pages
from analyzer.report.words import sentences
from analyzer.studies.cost import Prices
from analyzer.watch.betting import POINTS, Trace
from analyzer.watch.monitor import Watch, saved_watch

PRICES = Prices(answer=1.0, ask_again=2.0, review=5.0, abstain=3.0, wrong=10.0)


def read(folder: Path, name: str, n: int, *, skill: float = 1.5, **options: Any) -> Path:
    """Let the monitor read a log of n questions in two groups, one with markup for a name; return its state."""
    rng = np.random.default_rng(len(name))
    answers = rng.integers(0, 3, n)
    logits = skilled_logits(rng, answers, 4, skill)
    data: dict[str, Any] = {"id": [f"{name}-{i}" for i in range(n)], "answer": ["ABC"[one] for one in answers]}
    data |= {f"logit_{letter}": logits[:, j].tolist() for j, letter in enumerate("ABCD")}
    pl.DataFrame(data | {"group": [MARKUP if i % 2 else "plain" for i in range(n)]}).write_parquet(folder / f"{name}.parquet")
    if not (folder / "p.json").exists():
        made(prices=PRICES, **options).save(folder / "p.json")
    monitor(folder / "p.json", folder / f"{name}.parquet", state=folder / "watch.json")
    return folder / "watch.json"


def small_store(folder: Path) -> str:
    """Return the address of a store with one pair."""
    items = quiz("quiz", 60)
    return write(str(folder / "store"), [(items, family(items, "toy", 0, levels=FEW))])


def test_a_trace_keeps_the_largest_value_of_each_stretch() -> None:
    """Against a loop: never more points than allowed, each the maximum of its own stretch, and the same after every reload."""
    rng = np.random.default_rng(0)
    values = rng.random(3 * POINTS + 77).tolist()
    trace = Trace()
    for n, value in enumerate(values, start=1):
        trace = Trace.from_json(json.loads(json.dumps(trace.to_json())))
        trace.add(value)
        assert len(trace.largest) <= POINTS
        ends = trace.questions
        assert ends[-1] == n
        assert trace.largest == [max(values[low:high]) for low, high in zip([0, *ends[:-1]], ends, strict=True)]
    assert trace.every == 4


def test_the_course_of_the_evidence_ends_where_the_test_stands(tmp_path: Path) -> None:
    """The last point is the present capital and the largest one the e-value that is reported, each over the alarm level."""
    state = read(tmp_path, "log", 300)
    watch = saved_watch(Predictor.load(tmp_path / "p.json"), state)
    tested = [record for record in watch_records(watch) if record["limit"] is not None]
    assert [record["check"] for record in tested] == ["top_prob", "entropy", "credible_size", "exchangeable misses"]
    for record in tested:
        assert max(1, max(record["evidence"]) * record["limit"]) == pytest.approx(record["e_value"], rel=1e-12)
        assert record["questions"][-1] == record["n_items"] == 300
    assert watch.looks is not None
    assert tested[0]["evidence"][-1] * tested[0]["limit"] >= float(watch.looks["top_prob"].bets.total)


def test_thresholds_by_subject_have_a_course_each(tmp_path: Path) -> None:
    """Each subject's misses are drawn by their own evidence."""
    watch = Watch(made(by="subject"), 0.01)
    for subject, misses in watch.misses.items():
        for number in range(5):
            misses.see(float(number % 2), bool(number % 2), f"{subject} {number}")
    drawn = [record for record in watch_records(watch) if record["limit"] is not None]
    assert [record["test"] for record in drawn] == ["exchangeable misses, subject history", "exchangeable misses, subject law"]
    assert all(len(record["evidence"]) == 5 for record in drawn)


def test_the_panel_says_what_the_monitor_says(tmp_path: Path) -> None:
    """Its figures are the monitor's; the page, the tables of a paper and the sentence agree; a group's name stays text."""
    state = read(tmp_path, "quiet", 400)
    read(tmp_path, "shifted", 400, skill=0.2)
    study = study_of(small_store(tmp_path), predictor=tmp_path / "p.json", watch=state)
    watch = saved_watch(Predictor.load(tmp_path / "p.json"), state)
    expected = watch_records(watch)
    found = tables(study)["watch"]
    assert found == expected and found[0]["outcome"] == "alarm"
    said = sentences.watch(first_question_tables(tables(study), study.request.questions[0]))
    size = next(record for record in expected if record["check"] == "set size")
    assert said.startswith("Alarm after 800 questions, 800 of them with answers. Moved, since about ")
    assert f"mean set size {size['live']:.2f} ({size['calibrated']:.2f} promised)" in said and "cost per 1,000 questions" in said
    html = page(study)
    assert MARKUP not in html and 'id="panel-watch"' in html
    packed = embedded(html)["tables"]["watch"]
    assert packed["n"] == [len(expected)] and "run" not in packed
    assert packed["live"] == [pytest.approx(record["live"], rel=1e-5) for record in expected]
    text = paper(study, "md")
    assert "## Live questions" in text and "Alarm after 800 questions" in text
    without = study_of(str(tmp_path / "store"))
    assert 'id="panel-watch"' not in page(without) and "Live questions" not in paper(without, "md")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--predictor", "p.json"], "add --watch, the state that analyze monitor keeps"),
        (["--watch", "watch.json"], "add --predictor, the predictor that is watched"),
        (["--predictor", "p.json", "--watch", "none.json"], "there is no state none.json; analyze monitor --state writes it"),
        (["--predictor", "other.json", "--watch", "watch.json"], "belongs to another predictor"),
        (["--predictor", "watch.json", "--watch", "watch.json"], "it is no predictor"),
        (["--predictor", "p.json", "--watch", "p.json"], "is not one of this version"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    """Exit 2 with one sentence, and no page."""
    read(tmp_path, "log", 20)
    made(alpha="0.2").save(tmp_path / "other.json")
    url = small_store(tmp_path)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["report", "--store", url, "--out", "r.html", *words])
    assert done.exit_code == 2 and said in done.output and len(after_first_line(done.output)) == 1, done.output
    assert not (tmp_path / "r.html").exists()


def test_a_log_that_was_read_gives_a_new_page(tmp_path: Path) -> None:
    """The served page is made anew when the monitor wrote its state, although the store is as it was."""
    state = read(tmp_path, "log", 30)
    url = small_store(tmp_path)
    pages = Pages(OPTIONS | {"store_url": url, "predictor": tmp_path / "p.json", "watch": state})
    before, first = pages.version(), pages.newest()
    assert f'data-live="{before}"' in first and "after 30 questions" in first
    read(tmp_path, "more", 25)
    assert pages.version() != before and "after 55 questions" in pages.newest()


@pytest.mark.browser
def test_the_charts_of_the_watch_are_drawn(tmp_path: Path, open_page: Any) -> None:
    """A line for every test and a pair of points for every share, whatever the filters say; the page asks no network."""
    state = read(tmp_path, "log", 300)
    url = small_store(tmp_path)
    (tmp_path / "r.html").write_text(page(study_of(url, predictor=tmp_path / "p.json", watch=state)), encoding="utf-8")
    opened = open_page(tmp_path / "r.html", "#model=toy").drawn()
    assert opened.page.locator("#chart-watch-evidence .mark-line path").count() == 4
    assert opened.page.locator("#chart-watch-shares .mark-symbol path").count() == 2 * 8
    assert opened.page.locator("#table-watch tbody tr").count() == 14
    assert all(address.startswith("file:") for address in opened.requests)
