"""A real Chromium for the tests of the report: the system's, never one that Playwright downloads."""

import csv
import io
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 180_000  # a busy machine was seen to need more than Playwright's half a minute to open a page


@dataclass
class Opened:
    """A page in the browser, with what it said and asked for."""

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def drawn(self) -> "Opened":
        """Wait until every chart shows the present state."""
        self.page.wait_for_selector("body:not([data-drawing])")
        return self


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Return the system's Chromium; without one tests skip, unless every dependency is required."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        if os.environ.get("REQUIRE_ALL_DEPS"):
            pytest.fail(f"no Chromium found; looked for {', '.join(NAMES)}")
        pytest.skip("no Chromium is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Any]:
    """Return a function that opens a file or address; it fails the test if the page reports an error."""
    opened: list[Opened] = []

    def open_one(address: Path | str, fragment: str = "", **context: Any) -> Opened:
        page = chromium.new_context(viewport={"width": 1280, "height": 900}, **context).new_page()
        page.set_default_timeout(PATIENCE_MS)
        one = Opened(page)
        page.on("console", lambda message: one.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: one.errors.append(str(error)))
        page.on("request", lambda request: one.requests.append(request.url))
        page.goto((address.as_uri() if isinstance(address, Path) else address) + fragment)
        opened.append(one)
        return one

    yield open_one
    errors = [error for one in opened for error in one.errors]
    for one in opened:
        one.page.context.close()
    assert not errors, errors


def table(opened: Opened, panel: str) -> list[dict[str, str]]:
    """Open a panel's table view and return its rows by title, with what is said above for all of them; "" where a column has no text."""
    opened.page.eval_on_selector(f"#table-{panel}", "details => { details.open = true; }")
    opened.page.wait_for_selector(f"#table-{panel} table", state="attached")
    opened.page.eval_on_selector_all(f"[data-more=table-{panel}]", "buttons => buttons.forEach(button => button.click())")
    cells = opened.page.eval_on_selector_all(f"#table-{panel} tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))")
    read = "all => all.map(({ firstChild, lastChild }) => [firstChild.textContent.trim(), lastChild.textContent])"
    shared = opened.page.eval_on_selector_all(f"#table-{panel} .shared span", read)
    return [defaultdict(str, shared) | dict(zip(cells[0], row, strict=True)) for row in cells[1:]]


def download(opened: Opened, panel: str) -> list[dict[str, str]]:
    """Return the rows of a panel's CSV."""
    with opened.page.expect_download() as waiting:
        opened.page.click(f"[data-csv={panel}]")
    return list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text(encoding="utf-8"))))
