"""docs/readme_demo.py, which makes the demo's rows and the picture of its report in README again."""

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from report_stores import FEW, family, quiz, study_of, write

from analyzer.api import compare
from analyzer.report.page import page

SCRIPT = Path(__file__).parents[2] / "docs" / "readme_demo.py"


@pytest.mark.browser
@pytest.mark.usefixtures("swaps_drawn_once")
def test_the_rows_and_the_picture_are_those_of_the_store(tmp_path: Path, chromium: Any) -> None:
    """The rows of ref-l on facts, corrected beside all others, and a picture that ends below the three lists of the verdict."""
    items = quiz("facts", 120)
    runs = [run for seed, model in enumerate(("ref-l", "ref-s")) for run in family(items, model, seed, levels=FEW)]
    url = write(str(tmp_path / "store"), [(items, runs)])
    (tmp_path / "report.html").write_text(page(study_of(url, cluster="item")), encoding="utf-8")
    subprocess.run([sys.executable, SCRIPT, url, tmp_path / "report.html", tmp_path], check=True, capture_output=True)
    expected = compare(url, scorers="lac", cluster="item").filter(model="ref-l").to_dicts()
    assert json.loads((tmp_path / "demo.json").read_text()) == expected and len(expected) == 2
    header = (tmp_path / "report.png").read_bytes()[:24]
    width, height = struct.unpack(">II", header[16:])
    assert header[:8] == b"\x89PNG\r\n\x1a\n" and width == 1180 and 400 < height < 1400


@pytest.mark.large
def test_what_is_missing_is_a_sentence(tmp_path: Path) -> None:
    """Wrong arguments, and a store that is not there."""
    for arguments, code, said in (
        (["store"], 2, "Usage: python docs/readme_demo.py STORE REPORT FOLDER"),
        ([str(tmp_path / "absent"), "report.html", str(tmp_path)], 5, "StoreNotFoundError"),
    ):
        refused = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)
        assert refused.returncode == code and said in refused.stderr.splitlines()[-1]
