"""The report as tables and figures for a paper."""

import re
from pathlib import Path

import pytest
import vl_convert
from click.testing import CliRunner
from latex_pages import complaints
from report_stores import FEW, family, mixed_store, quiz, study_of, write

from analyzer.cli.main import main
from analyzer.report.charts.comparison_charts import decoupling
from analyzer.report.charts.theme import for_paper
from analyzer.report.panels import panels_of
from analyzer.report.papers import paper
from analyzer.report.write import chart_specs, write_charts

pytestmark = [pytest.mark.large, pytest.mark.usefixtures("swaps_drawn_once")]  # no interpreter changes the text of a page


@pytest.fixture(scope="module")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with hostile names, a broken run and one without partner."""
    return mixed_store(tmp_path_factory.mktemp("papers"))


def test_markdown_has_every_table_that_the_store_fills(store_url: str) -> None:
    """Main table, pruning, quantization, frontier and sweeps, with intervals; the broken run is marked with its reason."""
    text = paper(study_of(store_url), "md")
    titles = ["## All runs", "## Pruning", "## Quantization", "## Frontier", "## Sweeps"]
    assert [line for line in text.splitlines() if line.startswith("## ")] == titles
    assert "!1 unreliable: 240 of 240 items have non-finite logits" in text
    pruning = text.split("## Pruning")[1].split("## ")[0]
    assert "rtn" not in pruning and "| dense |" in pruning and "[" in pruning
    assert "p accuracy" in pruning and "p set size" in pruning
    assert study_of(store_url).runs.reader.snapshot in text


def test_latex_is_booktabs_and_escapes_names(store_url: str, tmp_path: Path) -> None:
    """Each table opens and closes, no name can act as a command, and where there is pdflatex every table fits its page."""
    text = paper(study_of(store_url), "latex")
    opened = [text.count(rf"\begin{{{kind}}}") for kind in ("table", "longtable")]
    assert opened == [text.count(rf"\end{{{kind}}}") for kind in ("table", "longtable")] and sum(opened) == 5
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert labels == ["tab:all-runs", "tab:pruning", "tab:quantization", "tab:frontier", "tab:sweeps"]
    assert r"\caption{\textbf{Pruning.} " in text
    assert not [line for line in text.splitlines() if "%" in line.replace(r"\%", "") and not line.startswith("%")]
    assert complaints(text, tmp_path) == []


def test_files_are_the_charts_of_the_page(store_url: str, tmp_path: Path) -> None:
    """Every chart but the calculator's has its rows, and becomes SVG and PNG."""
    drawn = chart_specs(study_of(store_url, model=("small-1b", "small-7b", "small-13b")))
    assert set(drawn) == {name for panel in panels_of(False) if not panel.calculated for name in panel.charts or {}}
    assert all(spec["datasets"]["rows"] for spec in drawn.values())
    write_charts(study_of(store_url, model=("small-7b",), task=("quiz",), scorers=("lac",)), tmp_path / "charts")
    svg = (tmp_path / "charts" / "heat.svg").read_text(encoding="utf-8")
    assert svg.startswith("<svg") and "var(--" not in svg
    assert (tmp_path / "charts" / "heat.png").read_bytes().startswith(b"\x89PNG")


def test_a_chart_without_a_compressed_method_has_a_finite_height() -> None:
    """In a store of dense runs alone there is no method to tell apart: points of one colour and shape, and a picture that can be drawn."""
    facts = {"accuracy_tolerance": 0.02, "set_size_tolerance": 0.1}
    dense = {"method": "dense", "accuracy_change": 0.0, "set_size_change": 0.0}
    spec = for_paper(decoupling([], facts))
    svg = vl_convert.vegalite_to_svg(spec | {"width": 300, "datasets": spec.get("datasets", {}) | {"rows": [dense]}})
    assert re.search(r'<svg [^>]*height="[0-9.]+"', svg) and "Infinity" not in svg and "NaN" not in svg
    assert 'aria-label="method' not in svg  # no legend


@pytest.mark.parametrize("form", ["md", "latex"])
def test_tables_go_to_stdout_or_a_file(tmp_path: Path, form: str) -> None:
    """The same text either way; a store without runs is no error."""
    items = quiz("quiz", 60)
    url = write(str(tmp_path / "store"), [(items, family(items, "toy", 0, levels=FEW))])
    asked = ["report", "--store", url, "--format", form]
    printed = CliRunner().invoke(main, asked)
    assert printed.exit_code == 0 and "toy" in printed.stdout
    assert CliRunner().invoke(main, [*asked, "--out", str(tmp_path / "t")]).exit_code == 0
    assert (tmp_path / "t").read_text(encoding="utf-8") == printed.stdout
    empty = write(str(tmp_path / "none"), [])
    assert CliRunner().invoke(main, ["report", "--store", empty, "--format", form]).exit_code == 0
