"""Make what README shows of the demo again: the rows of one model in demo.json, and the first screen of the report in report.png.

    make demo && python docs/readme_demo.py demo-store demo-report.html docs

The picture needs a Chromium on the machine.
"""

import json
import shutil
import sys
from pathlib import Path

from analyzer.api import compare
from schemas.errors import HedgemarkError, UsageError

MODEL, TASK = "ref-l", "facts"
WIDTH, MOST_HEIGHT, MARGIN = 1180, 1400, 12  # pixels
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main(store: str, report: Path, folder: Path) -> None:
    """Write both files into a folder. Raises HedgemarkError without a Chromium."""
    every = compare(store, scorers="lac", cluster="item")  # p-values are corrected over all of the demo's runs
    rows = every.filter(model=MODEL, task=TASK).to_dicts()
    (folder / "demo.json").write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n", encoding="utf-8")
    take_picture(report, folder / "report.png")


def take_picture(report: Path, picture: Path) -> None:
    """Write the page from its top to the end of the verdict's three lists, as a reader on a wide screen sees it."""
    from playwright.sync_api import sync_playwright

    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise UsageError(f"no Chromium is on this machine; looked for {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = opened.new_page(viewport={"width": WIDTH, "height": MOST_HEIGHT}, color_scheme="light")
        page.goto(report.resolve().as_uri())
        page.wait_for_selector("body:not([data-drawing])")
        end = page.locator(".summary").bounding_box()
        page.screenshot(path=picture, clip={"x": 0, "y": 0, "width": WIDTH, "height": min(end["y"] + end["height"] + MARGIN, MOST_HEIGHT)})
        opened.close()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        print("Usage: python docs/readme_demo.py STORE REPORT FOLDER, such as demo-store demo-report.html docs", file=sys.stderr)
        sys.exit(UsageError.exit_code)
    try:
        main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    except HedgemarkError as error:
        print(f"Error: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
