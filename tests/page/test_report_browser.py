"""The report as a person meets it: opened from disk in a real Chromium."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from click.testing import CliRunner
from report_browser import Opened, download, table
from report_stores import CLOSING, FORMULA, MARKUP, family, mixed_store, quiz, run_of, study_of, write

from analyzer.api import sets
from analyzer.cli.main import main
from analyzer.conformal import swap_test
from analyzer.report.page import page
from analyzer.report.panels import panels_of
from analyzer.tables.cautions import KL, RECALIBRATED

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("swaps_drawn_once")]
PRICES = {"answer": 0.01, "ask_again": 0.07, "review": 1.5, "abstain": 0.3, "wrong": 3.0}
SAVING = 40.0


@pytest.fixture(scope="module")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with hostile names, a broken run and one without partner."""
    return mixed_store(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def path(store_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its page on disk."""
    return save(store_url, tmp_path_factory.mktemp("page"))


def save(url: str, folder: Path) -> Path:
    target = folder / "report.html"
    target.write_text(page(study_of(url)), encoding="utf-8")
    return target


def slide(opened: Opened, alpha: str) -> Opened:
    opened.page.locator("#alpha").fill(alpha)
    return opened.drawn()


def number(text: str) -> float:
    return float(re.split(r" \[", text.replace(",", ""))[0])


def test_the_page_opens_from_disk_without_error_or_request(path: Path, open_page: Any) -> None:
    """Every chart is drawn, the console is silent, and the file itself is the only thing asked for."""
    opened = open_page(path).drawn()
    assert opened.page.locator(".chart svg").count() == sum(len(panel.charts or {}) for panel in panels_of(False))
    assert opened.requests == [path.as_uri()]


def test_cautions_are_seen_below_their_panels(path: Path, open_page: Any) -> None:
    """KL's sentence under the panel that can show KL, that of recalibrated thresholds under transfer, the prompts' above all panels."""
    opened = open_page(path).drawn()
    for place, words in (("#panel-heat", KL), ("#panel-transfer", RECALIBRATED), ("body > .caution", "Between 2 prompts the accuracy")):
        found = opened.page.locator(place if place.startswith("body") else f"{place} .caution").filter(has_text=words)
        assert found.count() == 1 and found.is_visible(), place
    assert opened.page.locator("#panel-sizes .caution").count() == 0


@pytest.mark.parametrize("alpha", ["0.1", "0.37"])
def test_alpha_shows_what_analyze_sets_prints(path: Path, store_url: str, open_page: Any, alpha: str) -> None:
    """Set size, coverage and their spread at the slider's alpha, for every run."""
    opened = slide(open_page(path), alpha)
    known = {(r["model"], r["level"], r["task"], r["prompt"]): r for r in sets(store_url, alphas=[alpha], scorers=["lac"]).to_dicts()}
    shown = table(opened, "alpha")
    assert len(shown) > 15
    for row in shown:
        record = known[row["model"], row["level"], row["task"], row["prompt"]]
        assert number(row["set size"]) == pytest.approx(record["set_size"], abs=6e-4)
        assert number(row["coverage"]) == pytest.approx(record["coverage"], abs=6e-5)
    chosen = opened.page.locator("#chosen option:checked").text_content()
    said = opened.page.locator("#alpha-said").text_content()
    record = next(r for (m, level, task, p), r in known.items() if f"{m} · {r['method']} {level} · {task} · {p}" == chosen)
    assert f"{record['set_size']:.2f} compressed" in said


def test_filters_and_links_show_the_same_view(path: Path, open_page: Any) -> None:
    """What a filter leaves is what the address in the bar opens again."""
    opened = open_page(path).drawn()
    opened.page.select_option("[data-filter=task]", "exam")
    opened.page.select_option("[data-filter=model]", "small-1b")
    slide(opened, "0.25")
    opened.page.select_option("#metric", "flips")
    rows = table(opened.drawn(), "heat")
    assert rows and {(row["model"], row["task"]) for row in rows} == {("small-1b", "exam")}
    fragment = opened.page.evaluate("location.hash")
    assert fragment == "#model=small-1b&task=exam&alpha=0.25&metric=flips"
    again = open_page(path, fragment).drawn()
    assert table(again, "heat") == rows
    assert table(again, "alpha") == table(opened, "alpha")
    assert again.page.locator("#metric").input_value() == "flips"
    again.page.select_option("#chosen", label="small-1b · wanda 0.4 · exam · base")
    chosen = open_page(path, again.drawn().page.evaluate("location.hash")).drawn()
    assert "run=small-1b" in chosen.page.evaluate("location.hash")
    assert "wanda 0.4 · exam" in chosen.page.locator("#panel-flips [data-chosen]").text_content()
    again.page.click("#reset")
    assert len(table(again.drawn(), "heat")) > len(rows)
    assert again.page.evaluate("location.hash") == ""


def test_a_fragment_of_nonsense_is_ignored(path: Path, open_page: Any) -> None:
    """Unknown names and values outside their range leave the page as it opens."""
    opened = open_page(path, f"#model=nobody&alpha=7&metric=constructor&run={quote(MARKUP)}&price.review=-1").drawn()
    assert opened.page.locator("#alpha").input_value() == "0.1"
    assert len(table(opened, "heat")) > 5


def test_the_calculator_agrees_with_analyze_cost(path: Path, store_url: str, open_page: Any, tmp_path: Path) -> None:
    """For prices typed in: cost, change, hardware, what pays and the review price at break-even, with their intervals."""
    prices = "[prices]\n" + "".join(f"{name} = {price}\n" for name, price in PRICES.items())
    hardware = f"[rules]\nask_again_up_to = 3\n[hardware]\ndense = {SAVING}\nwanda = 0\nrtn = 0\nbayes = 0\n"
    (tmp_path / "prices.toml").write_text(prices + hardware)
    asked = ["cost", "--store", store_url, "--prices", str(tmp_path / "prices.toml"), "--scorer", "lac", "--format", "json"]
    known = {record["run"]: record for record in json.loads(CliRunner().invoke(main, asked).stdout)}
    names = {key(run.row): run.row["name"] for run in study_of(store_url).exact_cells}
    opened = open_page(path).drawn()
    for name, price in (PRICES | {"ask_again_up_to": 3, "saving": SAVING}).items():
        opened.page.fill(f"[data-price={name}]", str(price))
    rows = download(opened.drawn(), "cost")
    assert len(rows) > 15
    for row in rows:
        record = known[names[key({name: unquoted(row[name]) for name in ("model", "method", "level", "task", "prompt")})]]
        for field in ("cost", "cost_change", "total_change"):
            for end in ("", "_low", "_high"):
                expected = record[f"{field}{end}"]
                assert row[f"{field}{end}"] == "" if expected is None else float(row[f"{field}{end}"]) == pytest.approx(expected, abs=0.02)
        assert row["pays"] == (record["pays"] or "")
        for end in ("", "_low", "_high"):
            even = record[f"break_even_review_price{end}"]
            assert row[f"break_even{end}"] == "" if even is None else float(row[f"break_even{end}"]) == pytest.approx(even, rel=0.02)


def key(row: Any) -> tuple[str, ...]:
    return tuple(row[name] for name in ("model", "method", "level", "task", "prompt"))


def unquoted(text: str) -> str:
    return text.removeprefix("'")


def test_table_and_csv_hold_the_same_numbers(path: Path, open_page: Any) -> None:
    """In every panel, row by row and figure by figure, the table's rounding apart; each row cites the snapshot."""
    opened = open_page(path).drawn()
    snapshot = opened.page.locator("footer code").text_content()
    for panel in panels_of(False):
        shown, saved = table(opened, panel.id), download(opened, panel.id)
        assert len(shown) == len(saved) > 0, panel.id
        for row, record in zip(shown, saved, strict=True):
            assert record["snapshot"] == snapshot and row["model"] == unquoted(record["model"])
            assert all(same(row[column.title], record[column.field], column) for column in panel.columns), (row, record)


def same(text: str, value: str, column: Any) -> bool:
    if column.digits is None or value == "":
        return text == unquoted(value)
    return bool(number(text) == pytest.approx(column.times * float(value), abs=0.51 * 10**-column.digits))


def test_names_with_markup_are_shown_as_text(path: Path, open_page: Any) -> None:
    """Neither an image's error handler nor a closed script runs, in cards, filters, tables, charts, items and the CSV."""
    opened = open_page(path, f"#model={quote(MARKUP)}").drawn()
    opened.page.eval_on_selector("#flipped", "details => { details.open = true; }")
    opened.page.wait_for_selector("#flipped table")
    for panel in panels_of(False):
        table(opened, panel.id)
    assert opened.page.evaluate("window.hacked") is None
    assert opened.page.locator("img").count() == 0
    assert MARKUP in opened.page.locator(".card:visible h3").first.text_content()
    assert CLOSING in opened.page.locator("#flipped td").nth(1).text_content()
    assert any("<img src=x" in text for text in opened.page.locator("#chart-heat text").all_text_contents())
    opened.page.hover("#chart-scatter .mark-symbol path >> nth=0")
    assert MARKUP in opened.page.locator("#vg-tooltip-element").text_content()
    opened.page.select_option("[data-filter=model]", "")
    saved = {row["model"] for row in download(opened.drawn(), "alpha")}
    assert f"'{FORMULA}" in saved and FORMULA not in saved


def test_a_name_of_the_verdict_leads_to_its_card(path: Path, open_page: Any) -> None:
    """Pressing a compressed model's name shows its card, and its run wherever one run is shown; by keyboard alone."""
    opened = open_page(path).drawn()
    opened.page.locator(".chip", has_text="wanda 0.2").first.focus()
    opened.page.keyboard.press("Enter")
    opened.drawn()
    assert "wanda 0.2" in opened.page.evaluate("document.activeElement.querySelector('h3').textContent")
    assert "wanda 0.2" in opened.page.locator("#panel-sizes [data-chosen]").text_content()


def test_the_slider_moves_by_keyboard(path: Path, open_page: Any) -> None:
    """An arrow key moves alpha by 0.01."""
    opened = open_page(path).drawn()
    opened.page.focus("#alpha")
    opened.page.keyboard.press("ArrowRight")
    assert opened.drawn().page.locator("#alpha-said").text_content().startswith("0.11")


def test_dark_mode_and_print_follow_the_system(path: Path, open_page: Any) -> None:
    """Dark when the system is dark, charts included; light and without controls on paper."""
    opened = open_page(path, color_scheme="dark").drawn()
    label = "getComputedStyle(document.querySelector('#chart-scatter .role-axis-label text')).fill"
    dark = opened.page.evaluate(label)
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    opened.page.emulate_media(media="print")
    assert not opened.page.locator(".filters").is_visible()
    assert opened.page.evaluate(label) != dark
    assert opened.page.evaluate("getComputedStyle(document.querySelector('.chart svg')).maxWidth") == "100%"
    torn = "heads => heads.filter(head => getComputedStyle(head).breakAfter !== 'avoid').length"
    assert opened.page.eval_on_selector_all("h2, .means, .reading, .about", torn) == 0
    counts = [int(text) for text in opened.page.locator(".column .count").all_inner_texts()]
    assert counts == opened.page.eval_on_selector_all(".column", "all => all.map(column => column.querySelectorAll('.one').length)")
    assert opened.page.eval_on_selector_all(".card, .one", "all => all.filter(one => !one.offsetHeight).length") == 0


def test_charts_are_drawn_again_for_paper(path: Path, open_page: Any) -> None:
    """Their words keep their size there, and come back to the screen's width; the three lists of the verdict stand below each other."""
    opened = open_page(path, screen={"width": 1400, "height": 900})
    page = opened.page
    page.set_viewport_size({"width": 1400, "height": 900})
    opened.drawn()
    width = "document.querySelector('#chart-scatter svg').getBoundingClientRect().width"
    wide = page.evaluate(width)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function(f"{width} <= 700")
    page.emulate_media(media="print")
    places = "all => all.map(column => [column.offsetLeft, column.offsetTop])"
    lefts, tops = zip(*page.eval_on_selector_all(".column", places), strict=True)
    assert len(set(lefts)) == 1 and len(set(tops)) == 3
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.wait_for_function(f"{width} == {wide}")


@pytest.mark.parametrize("width", [420, 1280])
def test_nothing_is_wider_than_the_screen(path: Path, open_page: Any, width: int) -> None:
    """Wide tables and maps scroll in themselves."""
    opened = open_page(path, screen={"width": width, "height": 900})
    opened.page.set_viewport_size({"width": width, "height": 900})
    assert opened.drawn().page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_browser_that_cannot_unpack_the_data_says_so(path: Path, chromium: Any) -> None:
    """A browser from before 2023 shows a sentence in place of the charts."""
    page = chromium.new_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto(path.as_uri())
    page.wait_for_selector("text=This browser cannot unpack the figures of this page; one of 2023 or later can.")
    page.close()


def test_one_run(tmp_path: Path, open_page: Any) -> None:
    """A single dense run has no verdict, and says what one needs; its sets are shown."""
    items = quiz("quiz", 60)
    opened = open_page(save(write(str(tmp_path / "one"), [(items, family(items, "toy", 0)[:1])]), tmp_path)).drawn()
    assert "No compressed model to judge yet" in opened.page.locator("h1").text_content()
    assert opened.page.locator("#panel-heat .empty").is_visible()
    assert opened.page.locator("#chart-sizes svg").count() == opened.page.locator("#chart-cost svg").count() == 1
    assert len(table(opened, "alpha")) == 1


def test_no_run(tmp_path: Path, open_page: Any) -> None:
    """An empty store gives a page that says how to fill it."""
    opened = open_page(save(write(str(tmp_path / "none"), []), tmp_path)).drawn()
    assert "holds no runs yet" in opened.page.locator("header").text_content()


def test_unreliable_runs_alone(tmp_path: Path, open_page: Any) -> None:
    """Where every run is broken, the reasons are shown and no figure is."""
    items = quiz("quiz", 60)
    nothing = np.full((60, 4), np.nan)
    runs = [run_of(items, nothing, model="toy"), run_of(items, nothing, model="toy", method="rtn", level="w3a16")]
    opened = open_page(save(write(str(tmp_path / "broken"), [(items, runs)]), tmp_path)).drawn()
    assert all("non-finite" in row["reason"] for row in table(opened, "unreliable"))
    assert opened.page.locator("#panel-alpha .empty").is_visible()


def test_150_runs(tmp_path: Path, open_page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """150 runs x 99 alphas x 2 scorers, with the texts of flipped items: below 5 MB, every chart is drawn; no p-value is looked at."""
    monkeypatch.setattr(swap_test, "N_DRAWS", 199)
    parts = []
    for length in range(5):
        items = quiz("task" + "x" * length, 60)
        parts.append((items, [run for seed in range(5) for run in family(items, f"model-{seed + 1}b", seed)]))
    saved = save(write(str(tmp_path / "many"), parts), tmp_path)
    assert saved.stat().st_size < 5_000_000
    opened = open_page(saved).drawn()
    assert " from 150 runs of snapshot " in opened.page.locator("footer").text_content()
    assert len(table(opened, "heat")) == 125
