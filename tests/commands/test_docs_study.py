"""docs/study.py: runs that are missing are made, and each sentence follows from the intervals."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from analyzer.report.study_page import Section
from analyzer.studies.published_studies import Kind, Part
from producer.machine.interrupt import Interrupted
from store import open_reader

pytestmark = pytest.mark.producer
SCRIPT = Path(__file__).parents[2] / "docs" / "study.py"


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_study", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(level: str, growth: tuple[float, float], change: tuple[float, float], **more: Any) -> dict[str, Any]:
    """Return a record of wanda at a level, with the ends of two intervals."""
    record = {"model": "m", "method": "wanda", "level": level, "task": "urn", "unreliable": None, "strength": float(level)}
    for name, (low, high) in (("set_size_change", growth), ("accuracy_change", change)):
        record |= {name: (low + high) / 2, f"{name}_low": low, f"{name}_high": high}
    return record | more


GREW, SAME, FELL = (0.1, 0.3), (-0.1, 0.1), (-0.3, -0.1)
ROWS = [
    row("0.1", SAME, SAME),
    row("0.2", GREW, SAME),
    row("0.3", SAME, FELL),
    row("0.4", GREW, FELL),
    row("0.5", (0.0, 9.0), (-9.0, 0.0)),
    row("0.6", GREW, FELL, unreliable="non-finite"),
]


def sentences(study: ModuleType, kind: Kind, records: list[dict[str, Any]], figure: str = "") -> list[str]:
    return list(study.findings(Section(Part("title", "about", kind, figure=figure), records, (), None)))


def test_rows_are_counted_by_their_intervals(study: ModuleType) -> None:
    """An interval that touches 0 shows nothing, and an unreliable row is in no count."""
    first, only_grew, only_fell, largest, left_out = sentences(study, "mean over tasks", ROWS)
    assert first == "Of 5 rows about a compressed model, 2 have larger sets beyond noise, 0 smaller ones, and 2 a lower accuracy."
    assert only_grew == "Larger sets without a loss of accuracy that shows: m wanda 0.2."
    assert only_fell == "A loss of accuracy without larger sets that show: 1."
    assert largest == "The largest growth is that of m wanda 0.2 on urn, +0.20 [+0.10, +0.30] options."
    assert left_out == "1 unreliable row left out."


def test_methods_are_counted_each_for_itself(study: ModuleType) -> None:
    """Rows of one method and level on several tasks or models are one sentence, with the largest change."""
    rows = [row("0.5", GREW, FELL), row("0.5", (0.2, 0.6), SAME, task="facts"), row("0.1", SAME, SAME)]
    strong, weak = sentences(study, "by task", rows)
    assert strong.startswith("wanda 0.5: sets are larger beyond noise in 2 of 2 rows, accuracy is lower in 1; ")
    assert strong.endswith("m wanda 0.5 on facts, +0.40 [+0.20, +0.60].")
    assert weak.startswith("wanda 0.1: sets are larger beyond noise in 0 of 1 row")


def test_levels_are_read_from_weak_to_strong(study: ModuleType) -> None:
    """The first level at which a figure leaves the noise is named, in the order of strength and not of the records."""
    assert sentences(study, "along levels", ROWS[::-1]) == [
        "m wanda (0.1, 0.2, 0.3, 0.4, 0.5): larger sets beyond noise first at 0.2, a lower accuracy first at 0.3.",
        "1 unreliable row left out.",
    ]
    assert sentences(study, "along levels", ROWS[:1])[0].endswith("larger sets beyond noise at no level, a lower accuracy at no level.")


def test_a_slope_counts_once(study: ModuleType) -> None:
    """Every model of a family carries the family's slope, which is one comparison; without slopes nothing is said."""

    def slopes(level: str, low: float, high: float) -> list[dict[str, Any]]:
        ends = {"slope": (low + high) / 2, "slope_low": low, "slope_high": high}
        return [row(level, SAME, SAME, family="m", model=model, **ends) for model in ("a", "b", "c")]

    records = [*slopes("0.1", -2, -1), *slopes("0.2", -1, 1), *slopes("0.3", 1, 2), *slopes("0.4", -3, -1)]
    first, less, more = sentences(study, "scale", records)
    assert first.startswith("Of 4 comparisons ") and "growth of their sets in 2, more in 1; 1 are unclear." in first
    assert less == "The sets of larger models grew less: wanda 0.1 on urn, wanda 0.4 on urn."
    assert more == "The sets of larger models grew more: wanda 0.3 on urn."
    assert sentences(study, "scale", [record | {"slope": None} for record in records]) == []


def test_runs_are_made_and_shown(study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of the plan with one model: the runs are made, found again, and every study of the paper has its heading."""
    monkeypatch.setenv("HEDGEMARK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(study, "MODELS", ("ref-s",))
    store = str(tmp_path / "store")
    for _ in range(2):
        assert study.make_runs(store, 60, ("dense", "magnitude")) == []
    assert len(open_reader(store).catalog) == 4
    page = "\n".join(study.page(store, 60, ["no kernel"]))
    assert [line.split(". ")[1] for line in page.splitlines() if line.startswith("## ")] == [
        "Main results", "Pruning", "Weight-only quantization", "Precision", "Progressive pruning", "Mixture of experts", "Scale",
        "Accuracy against set size",
    ]  # fmt: skip
    assert "Not run yet, and in no table: ref-s: wanda 0.5, sparsegpt 0.5, llm-pruner 0.2, slicegpt 0.2, rtn, gptq, awq, " in page
    assert "wanda 0.6." in page and "dense" not in page.split("in no table: ")[1].split("\n")[0]
    assert "4 runs of ref-s on 60 items each of urn and facts" in page and "magnitude" in page and "- Not run: no kernel" in page


def test_a_signal_ends_it(study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is no failure of one block of the plan: nothing more is run, and no document is printed."""
    asked = []

    def stopped(*arguments: Any) -> None:
        asked.append(arguments)
        raise Interrupted("stopped by SIGINT", 2)

    monkeypatch.setattr(study, "produce", stopped)
    with pytest.raises(Interrupted):
        study.make_runs(str(tmp_path / "store"), 60)
    assert len(asked) == 1
