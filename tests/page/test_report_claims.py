"""What the page claims: bars, counts, levels and provenance follow from the figures, and signs are of one kind."""

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from report_stores import FEW, embedded, family, mixed_store, panel_html, quiz, rows, study_of, write

from analyzer.compare.two_axis_verdict import BOTH_DEGRADE, BOTH_HOLD, FALLS_SILENT, HOLDS_GROW, INCONCLUSIVE
from analyzer.gate.ci_reports import tool
from analyzer.report.charts.drawn import CHARTS
from analyzer.report.data.tables import first_question_tables, tables
from analyzer.report.page import page
from analyzer.report.panels import panels_of
from analyzer.report.words import sentences
from analyzer.report.words.cards import cards
from schemas.run import Environment

pytestmark = [pytest.mark.large, pytest.mark.usefixtures("swaps_drawn_once")]  # no interpreter changes the text of a page


@pytest.fixture(scope="module")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with hostile names, a broken run and one without partner."""
    return mixed_store(tmp_path_factory.mktemp("claims"))


def test_accuracy_and_sets_are_answered_by_counts(store_url: str) -> None:
    """The sentence counts the verdicts of the table below it, flagged runs left out."""
    found = study_of(store_url)
    spoken = first_question_tables(tables(found), found.request.questions[0])
    verdicts = [pair["verdict"] for pair in spoken["pairs"] if not pair["unreliable"] and pair["set_size_change"] is not None]
    counts = [verdicts.count(name) for name in (HOLDS_GROW, FALLS_SILENT, BOTH_HOLD, BOTH_DEGRADE, INCONCLUSIVE)]
    n = len(verdicts)
    assert sum(counts) == n > 5
    assert sentences.decoupling(spoken) == (
        f"{counts[0]} of {n}: accuracy held and sets grew; {counts[1]} of {n}: accuracy fell and the sets did not warn. "
        f"Both held in {counts[2]}, both got worse in {counts[3]}, too few questions to tell in {counts[4]}."
    )


def test_cliffs_draw_only_what_was_measured() -> None:
    """No band fills the room between two levels."""
    facts = {"accuracy_tolerance": 0.02, "set_size_tolerance": 0.1, "coverage_tolerance": 0.01, "alpha": 0.1}
    for panel in panels_of(False):
        for make in [CHARTS[name] for name in panel.charts] if panel.id == "cliffs" else ():
            marks = [layer["mark"]["type"] for layer in make(["wanda"], facts)["layer"]]
            assert "area" not in marks and {"point", "rule"} <= set(marks)


def test_the_page_says_what_was_run(tmp_path: Path) -> None:
    """Weights, date and versions of every run, a sentence about them, and the program that wrote the page."""
    items = quiz("quiz", 60)
    env = Environment(created="2026-03-04T05:06:07+00:00", libraries={"torch": "2.13.0", "numpy": "2.4.6"})
    runs = [replace(run, env=env) for run in family(items, "toy", 0, levels=FEW, weights_hash="ab" * 32)]
    html = page(study_of(write(str(tmp_path / "store"), [(items, runs)])))
    shown = rows(embedded(html), "made")
    assert len(shown) == 2
    for row in shown:
        assert (row["weights"], row["date"], row["libraries"]) == ("ab" * 8, "2026-03-04", "numpy 2.4.6, torch 2.13.0")
    assert "2 runs of 1 dense model, made on 2026-03-04." in html and f"Written by {tool()} from 2 runs of snapshot" in html
    assert "A run marked ! cannot be trusted" in panel_html(html, "heat")


def test_one_minus_sign(store_url: str) -> None:
    """Every negative number has the hyphen that tables have, none the mathematical sign."""
    html = page(study_of(store_url))
    ours = html[: html.index("<script>")] + "".join(read_script(name) for name in ("rows.js", "cost.js", "page.js"))
    assert "\N{MINUS SIGN}" not in ours and '"minus": "-"' in json.dumps(embedded(html))


def read_script(name: str) -> str:
    return files("analyzer.report").joinpath("web", name).read_text(encoding="utf-8")


def test_bars_are_the_intervals_that_decided(store_url: str) -> None:
    """The two ends of a bar are the ends that the gate compared with the limit; where a reason keeps it undecided there is no bar."""
    found = [bar for card in cards(study_of(store_url)) for bar in card.bars]
    assert {bar["result"] for bar in found} >= {"pass", "fail", "inconclusive"}
    for bar in found:
        assert (bar["width"] is None) == (bar["amount_low"] is None)
        if bar["width"] is None:
            assert bar["result"] == "inconclusive" and bar["reason"]
            continue
        end = bar["low"] + bar["width"]
        side = "pass" if end <= bar["limit"] + 0.01 else "fail" if bar["low"] > bar["limit"] - 0.01 else "inconclusive"
        assert side == bar["result"], bar


def test_a_model_says_on_which_tasks_it_is_not_judged(tmp_path: Path) -> None:
    """Amid a sweep, a model that may ship by the tasks so far names the tasks that its dense model has and it has not."""
    both = [(items, family(items, "toy", 0, levels=FEW)) for items in (quiz("first", 400), quiz("second", 400))]
    whole = cards(study_of(write(str(tmp_path / "whole"), both)))
    half = cards(study_of(write(str(tmp_path / "half"), [both[0], (both[1][0], both[1][1][:1])])))
    assert both[1][1][0].key.method == "dense"
    assert [(card.tasks, list(card.not_judged)) for card in whole] == [(["first", "second"], [])] * len(whole)
    assert [(card.tasks, list(card.not_judged)) for card in half] == [(["first"], ["second"])] * len(half) and half
    said = " It is not judged on second, without a run there."
    assert all(card.short.endswith("not judged on second") and card.why.endswith(said) for card in half)
    assert not any("not judged" in card.short + card.why for card in whole)
