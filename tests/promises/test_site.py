"""The site: it builds strictly with its tutorials run, every page can be reached, and nobody needs a network to read it or search in it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
pytestmark = [pytest.mark.slow, pytest.mark.producer]  # `.ci/run` builds it too, and runs the tutorials


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it: a broken link, a page in no table of contents or a tutorial that fails is an error."""
    folder = tmp_path_factory.mktemp("site")
    target = (ROOT / "Makefile").read_text().split("\ndocs:")[1].split("\n\n")[0]
    options = re.search(r"sphinx-build (.*) docs/_site", target)[1].split()
    published = {"HEDGEMARK_PUBLISHED": str(SHARED / "data" / "ye2024")} if SHARED.is_dir() else {}
    command = [sys.executable, "-m", "sphinx", *options, str(folder)]
    built = subprocess.run(command, cwd=ROOT, env=os.environ | published, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-4000:]
    return folder


def from_a_network(folder: Path) -> set[str]:
    """What the pages of a folder load from elsewhere: scripts, styles, fonts, pictures."""
    pages, sheets = [*folder.rglob("*.html")], [*folder.rglob("*.css")]
    assert pages
    loaded = {found for page in pages for found in re.findall(r'<(?:script|img|link|iframe)[^>]+(?:src|href)="([^"]+)"', page.read_text())}
    styles = {found for sheet in sheets for found in re.findall(r"""(?:url\(|@import )["']?([^"')]+)""", sheet.read_text())}
    assert loaded
    return {found for found in loaded | styles if found.startswith(("http:", "https:", "//"))}


def test_no_page_loads_anything_from_a_network(site: Path) -> None:
    """Scripts, styles, fonts and pictures of every page are files of the site, also those in the output of the tutorials."""
    assert len([*site.rglob("*.html")]) > 30 and not from_a_network(site)


def test_the_first_file_leads_to_the_first_page(site: Path) -> None:
    """`index.html` at the top sends the reader to the page that the contents start with."""
    target = re.search(r'url=([^"]+)"', (site / "index.html").read_text())[1]
    assert "Hedgemark" in (site / target).read_text()


def outputs(page: Path) -> str:
    """What the cells of a tutorial printed."""
    return "".join(re.findall(r'<div class="cell_output.*?(?=<div class="cell |<section|</section)', page.read_text(), re.S))


def test_the_checkpoint_is_judged(site: Path) -> None:
    """The tutorial on a checkpoint shows a pass, a failure and an undecided gate, and the two sets of its threshold."""
    printed = outputs(site / "docs" / "tutorials" / "ship_a_checkpoint.html")
    assert [f"exit code {code}" in printed for code in (0, 1, 3)] == [True] * 3
    assert "gate: pass" in printed and "gate: fail" in printed and "items would probably be enough" in printed


def test_the_published_study_is_replayed(site: Path, shared_data: Path) -> None:
    """The tutorial on the published study finds all six stated figures, and draws both of its charts."""
    printed = outputs(site / "docs" / "tutorials" / "replay_a_study.html")
    assert "6 of 6 rows of stated.csv agree to the last stated digit." in printed
    assert len(re.findall(r"<svg|\.svg", printed)) >= 2


def test_the_store_is_shared(site: Path) -> None:
    """The tutorial on stores shows that a removed run stays in the history."""
    printed = outputs(site / "docs" / "tutorials" / "share_a_store.html")
    assert "paper-v1" in printed and re.search(r"wrong\s(.*\s)?seed", printed) and "xarray.Dataset" in printed


@pytest.mark.browser
def test_the_search_needs_no_server(site: Path, open_page: Any) -> None:
    """A search in pages that are opened as files finds the glossary by one of its words, and asks no network."""
    opened = open_page((site / "search.html").as_uri() + "?q=nonconformity")
    opened.page.wait_for_selector("ul.search li")
    assert "Glossary" in opened.page.inner_text("ul.search")
    assert not [request for request in opened.requests if not request.startswith("file:")] and not opened.errors
