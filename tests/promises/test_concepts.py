"""docs/concepts: every picture is drawn by the script beside it, and the numbers in the text are those in the pictures."""

import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from analyzer.api import example_runs, gate, sets
from analyzer.scorers import SCORERS

FOLDER = Path(__file__).parents[2] / "docs" / "concepts"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pictures", FOLDER / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_shows_a_picture_of_the_script(pictures: ModuleType) -> None:
    """Each page has one picture with a description, and no picture is left over."""
    shown = {re.search(r"!\[(.{40,})\]\((\w+)\.svg\)", text)[2] for text in PAGES.values()}
    assert shown == set(pictures.PICTURES) == {path.stem for path in FOLDER.glob("*.svg")}
    assert len(shown) == len(PAGES) == 4


@pytest.mark.large
def test_the_script_draws_charts(pictures: ModuleType, tmp_path: Path) -> None:
    """All pictures are drawn again, with the same words and numbers on them as those that stand there."""
    pictures.main(tmp_path)
    for path in FOLDER.glob("*.svg"):
        old, new = (re.findall(r">([^<>]+)</text>", (folder / path.name).read_text(encoding="utf-8")) for folder in (FOLDER, tmp_path))
        assert old == new and old


def test_a_set_holds_what_lac_says(pictures: ModuleType) -> None:
    """The line in the first picture, 0.30, is 1 minus the threshold, and sets with it are those of the definition."""
    dense = example_runs()[0]
    probs = np.exp(dense["logits"].to_numpy())
    probs /= probs.sum(axis=1, keepdims=True)
    scores = sorted(1 - probs[i, a] for i, a in enumerate(dense["answer"].to_numpy()))
    least = 1 - scores[181 - 1]  # ceil(201 * 0.9) = 181
    assert pictures.threshold(dense) == pytest.approx(1 - least, abs=1e-15) and f"{least:.2f}" == "0.30"
    assert "at 0.30" in PAGES["prediction_sets"]


def test_the_numbers_of_coverage_and_set_size_are_measured(pictures: ModuleType) -> None:
    """The page says what the picture shows and `sets` measures for the dense and the damaged run."""
    drawn = re.findall(r">(\d\.\d\d)</text>", (FOLDER / "coverage_says_nothing.svg").read_text(encoding="utf-8"))
    sizes = [f"{size:.2f}" for size in sets([example_runs()[0], example_runs()[2]], scorers="lac")["set_size"]]
    assert drawn.count("0.90") == 3 and len(drawn) == 6 and sizes == ["1.24", "2.61"]
    assert all(PAGES["coverage"].count(size) == 2 for size in set(drawn) - {"0.90"}) and set(sizes) < set(drawn)


def test_the_gate_decides_as_the_page_says(pictures: ModuleType) -> None:
    """The slightly changed model is undecided until 6,400 questions and passes; the damaged one fails from 400 on."""
    rng, results = np.random.default_rng(5), {}
    for n in (100, 400, 1600, 6400):
        table = gate(pictures.simulated(n, rng), scorers="lac", limits={"set_size_growth": 0.1}).filter(check="set_size_growth")
        results[n] = dict(table.select("level", "result").iter_rows())
    assert [results[n]["0.3"] for n in results] == ["inconclusive"] * 3 + ["pass"]
    assert [results[n]["0.5"] for n in results] == ["inconclusive"] + ["fail"] * 3


def test_every_scorer_is_defined_with_the_source_that_its_module_names() -> None:
    """The table has one row per scorer, with its paper and the defaults of its parameters."""
    rows = {row[0]: row[1] for row in re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", PAGES["prediction_sets"], re.MULTILINE)}
    assert set(rows) == set(SCORERS)
    for name, scorer in SCORERS.items():
        papers = re.findall(r"arXiv:[0-9.]+[0-9]", inspect.getmodule(scorer).__doc__)
        assert all(paper in rows[name] for paper in papers if name != "aps-rand"), name
        for parameter in inspect.signature(scorer).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY:
                assert f"`{parameter.name}`" in rows[name] and f"{parameter.default:g}" in rows[name]
