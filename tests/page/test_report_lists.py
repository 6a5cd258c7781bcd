"""Lists of the page in a real Chromium: their order, how much of them is shown, what is sought in them, and what a bar shows."""

import re
from pathlib import Path
from typing import Any

import pytest
from report_browser import Opened, download, table
from report_stores import family, mixed_store, quiz, study_of, write

from analyzer.report.page import page
from analyzer.report.words.cards import cards

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("swaps_drawn_once")]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a store with hostile names, a broken run and one without partner."""
    folder = tmp_path_factory.mktemp("lists")
    target = folder / "report.html"
    target.write_text(page(study_of(mixed_store(folder))), encoding="utf-8")
    return target


def lines_of(opened: Opened, chart: str) -> list[str]:
    """The names at the left of a chart that is a list; the labels of its other axis are percentages."""
    texts = opened.page.locator(f"#chart-{chart} .role-axis-label text").all_text_contents()
    return [text for text in texts if not text.endswith("%")]


def test_long_lists_open_with_ten_rows(path: Path, open_page: Any) -> None:
    """Tables, lists of charts and the lists of the verdict say how many there are and show all when asked."""
    opened = open_page(path).drawn()
    assert len(lines_of(opened, "transfer")) == 10
    assert opened.page.locator("#more-transfer").text_content() == "10 of 11 Show all 11"
    opened.page.click("[data-more=transfer]")
    lines = lines_of(opened.drawn(), "transfer")
    assert len(lines) == 11 == len(table(opened, "transfer")) and lines[0] == "small-1b · wanda 0.6 · quiz · base"
    assert opened.page.locator("#more-transfer").text_content() == ""
    opened.page.eval_on_selector("#table-alpha", "details => { details.open = true; }")
    opened.page.wait_for_selector("#table-alpha td")
    assert opened.page.locator("#table-alpha tbody tr").count() == 10
    assert "10 of 20" in opened.page.locator("#table-alpha .more").text_content()


def test_words_that_are_sought_leave_lists_charts_and_tables(path: Path, open_page: Any) -> None:
    """The counts of the verdict say how many are left; the words are kept in the address; filters stand above the lists."""
    opened = open_page(path).drawn()
    counts = "counts => counts.map(count => count.textContent)"
    assert opened.page.eval_on_selector_all(".column .count", counts) == ["0", "8", "2"]
    opened.page.fill("#find", "Small-1b wanda")
    rows = table(opened.drawn(), "heat")
    assert rows and {(row["model"], row["method"]) for row in rows} == {("small-1b", "wanda")}
    assert opened.page.eval_on_selector_all(".column .count", counts) == ["0", "3 of 8", "1 of 2"]
    assert opened.page.locator(".chip:visible").count() == 4
    again = open_page(path, opened.page.evaluate("location.hash")).drawn()
    assert again.page.locator("#find").input_value() == "Small-1b wanda" and table(again, "heat") == rows
    assert again.page.evaluate("document.querySelector('.filters').compareDocumentPosition(document.querySelector('.summary'))") == 4


def test_the_cheapest_is_one_that_may_ship(tmp_path: Path, open_page: Any) -> None:
    """For each task the cheapest of the passing models, as the change that `analyze cost` prints; without one none is called so."""
    items = quiz("quiz", 600)
    url = write(str(tmp_path / "store"), [(items, family(items, "toy", 0))])
    strict, lenient = tmp_path / "strict.html", tmp_path / "lenient.html"
    strict.write_text(page(study_of(url, limits=("accuracy_loss=0.0001",))), encoding="utf-8")
    study = study_of(url, limits=("accuracy_loss=0.1",))
    lenient.write_text(page(study), encoding="utf-8")
    said = open_page(strict).drawn().page.locator("#cost-said").text_content()
    assert said == "None of these compressed models may ship yet, so none is called the cheapest."
    passed = [(card.method, card.level) for card in cards(study) if card.result == "pass"]
    opened = open_page(lenient).drawn()
    rows = [row for row in download(opened, "cost") if (row["method"], row["level"]) in passed]
    least = min(rows, key=lambda row: float(row["cost"]))
    assert 0 < len(passed) < 5
    said = opened.page.locator("#cost-said").text_content()
    assert said.startswith(f"Cheapest that may ship, per 1,000 questions: on quiz toy {least['method']} {least['level']}, ")
    assert float(re.search(r", ([+-]?[\d.]+) \[", said)[1]) == pytest.approx(float(least["cost_change"]), abs=0.006)
    assert said.endswith("compared with its dense run.")


def test_a_box_that_hides_something_says_so(path: Path, open_page: Any) -> None:
    """On a narrow screen a table that is cut at the right has a cue below it; what fits has none, and no box scrolls downwards."""
    opened = open_page(path).drawn()
    opened.page.set_viewport_size({"width": 420, "height": 900})
    table(opened, "heat")
    opened.page.evaluate("cueBoxes()")
    assert opened.page.locator("#table-heat .cue").is_visible()
    assert not opened.page.locator("#chart-sizes").locator("xpath=../following-sibling::p[contains(@class, 'cue')]").is_visible()
    boxes = "boxes => boxes.filter(box => box.scrollHeight > box.clientHeight + 1).length"
    assert opened.page.eval_on_selector_all(".scroll", boxes) == 0
    silent = "boxes => boxes.filter(box => box.scrollWidth > box.clientWidth + 1 && !box.nextElementSibling.offsetHeight).length"
    assert opened.page.eval_on_selector_all(".scroll", silent) == 0


def test_a_bar_beside_undecided_is_never_beyond_its_limit(path: Path, open_page: Any) -> None:
    """As drawn: bars of a passed check end at the limit or left of it, bars of a failed one begin right of it, the others cross it."""
    opened = open_page(path).drawn()
    sides = """bars => bars.filter(bar => bar.querySelector("rect")).map(bar => {
        const [box, limit] = [bar.querySelector("rect"), Number(bar.querySelector(".limit").getAttribute("x1"))];
        const [low, width] = [Number(box.getAttribute("x")), Number(box.getAttribute("width"))];
        return [bar.getAttribute("class").split(" ")[1], low + width <= limit ? "pass" : low > limit ? "fail" : "inconclusive"];
    })"""
    drawn = opened.page.eval_on_selector_all(".bar", sides)
    assert len(drawn) > 15 and all(result == side for result, side in drawn)
    assert opened.page.locator(".bar:not(:has(rect))").count() == opened.page.locator(".why").count() > 3


def test_print_shows_the_whole_heat_map_and_says_what_it_shows(path: Path, open_page: Any) -> None:
    """The choice of its figure is printed, the filters are not; a chart that is wider than the paper becomes smaller."""
    opened = open_page(path).drawn()
    opened.page.set_viewport_size({"width": 500, "height": 900})
    opened.page.wait_for_function("document.querySelector('#chart-heat').scrollWidth > 500")
    opened.page.emulate_media(media="print")
    assert opened.page.evaluate("document.querySelector('#chart-heat svg').getBoundingClientRect().right") <= 500
    assert opened.page.locator("#metric").is_visible() and not opened.page.locator(".filters").is_visible()


def test_a_text_that_all_rows_share_is_said_once(path: Path, open_page: Any) -> None:
    """Above the table, with its column's name; numbers stay in their columns, and the CSV keeps every column."""
    opened = open_page(path).drawn()
    rows, saved = table(opened, "made"), download(opened, "made")
    heads = opened.page.locator("#table-made th").all_inner_texts()
    assert {"dtype", "versions"}.isdisjoint(heads) and {"model", "method"} <= set(heads)
    assert {row["dtype"] for row in rows} == {row["dtype"] for row in saved} and len({row["dtype"] for row in saved}) == 1
    assert "All rows: " in opened.page.locator("#table-made .shared").inner_text()
