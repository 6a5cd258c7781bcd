"""`analyze study`: the tables and figures of a published study from a store."""

import math
from pathlib import Path

import numpy as np
import pytest
from analyzer_data import make_run, skilled_logits
from click.testing import CliRunner
from latex_pages import complaints
from store_tiny import write_runs

from analyzer.cli.main import main
from analyzer.compare.compare import compare
from analyzer.compare.two_axis_verdict import Tolerances
from analyzer.protocols.ask import ask
from analyzer.report.study_page import sections
from analyzer.runs.loading import open_runs
from analyzer.studies.published_studies import STUDIES, part_records, study_named, study_records
from schemas.errors import UsageError
from schemas.items import Item
from schemas.itemset import ItemSet, build_item_set
from store import init_store, open_writer

MARKUP = "<img src=x>"
EVERY = {field: () for field in ("model", "method", "level", "task", "prompt")}
QUESTION = ask(alphas="0.1", scorers="lac")


def quiz(task: str, n_items: int, seed: int) -> ItemSet:
    answers = np.random.default_rng(seed).integers(0, 4, n_items)
    texts = [Item(id=str(i), question=f"{task} {i}?", choices=dict(zip("ABCD", "wxyz", strict=True)), answer="ABCD"[a])
             for i, a in enumerate(answers)]  # fmt: skip
    return build_item_set(task, texts)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test of few items draw 99 permutations instead of 9,999: no p-value is looked at here."""
    monkeypatch.setattr("analyzer.conformal.swap_test.N_DRAWS", 99)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two models on two tasks of different size: dense, Wanda at four levels, and quantized; one name is markup."""
    address = str(tmp_path_factory.mktemp("study") / "store")
    init_store(address)
    for number, (task, n_items) in enumerate((("one", 240), ("two", 160))):
        items = quiz(task, n_items, number)
        runs = []
        for model, seed in ((MARKUP, 3), ("ref-moe", 4)):
            rng = np.random.default_rng(seed + 10 * number)
            dense = skilled_logits(rng, items.answer, 4, 2.0)
            runs.append(make_run(items, dense, model=model, method="dense", level="-"))
            for method, level, noise in (("wanda", "0.2", 0.1), ("wanda", "0.4", 0.8), ("wanda", "0.5", 1.5), ("wanda", "0.6", 3.0),
                                         ("quarot", "w8a8", 0.1), ("quarot", "w4a4", 2.0), ("gptq", "w4a16-g128", 0.2)):  # fmt: skip
                logits = (dense + noise * rng.normal(size=dense.shape)).astype(np.float32)
                runs.append(make_run(items, logits, model=model, method=method, level=level))
        with open_writer(address) as writer:
            for run in runs:
                writer.write(items, run)
    return address


def test_a_mean_over_tasks_is_the_mean_of_the_tasks(store: str) -> None:
    """Every task weighs the same whatever its items, and squared errors of tasks add up, in figures and in changes."""
    runs = open_runs(store, None, EVERY, with_dense=True)
    found = study_records(runs, QUESTION)
    parts = [record for record in compare(runs, QUESTION, average=True) if (record["model"], record["level"]) == ("ref-moe", "0.5")]
    mean = next(record for record in found.means if (record["model"], record["level"]) == ("ref-moe", "0.5"))
    assert mean["task"] == "mean of 2: one, two" and mean["n_items"] == 400
    for name in ("accuracy", "set_size", "set_size_change", "flips"):
        assert mean[name] == pytest.approx(sum(part[name] for part in parts) / 2, abs=1e-12)
    halves = [(part["set_size_change_high"] - part["set_size_change_low"]) / 2 for part in parts]
    half = (mean["set_size_change_high"] - mean["set_size_change_low"]) / 2
    assert half == pytest.approx(math.hypot(*halves) / 2, rel=0.02)  # t of 159 degrees of freedom for t of 239


def test_parts_show_their_methods_beside_the_dense_runs(store: str) -> None:
    """Each part has its own methods and the dense runs of their models; the sweep is in order of strength, dense at 0."""
    found = study_records(open_runs(store, None, EVERY, with_dense=True), QUESTION)
    parts = {part.title: part_records(part, found) for part in STUDIES["tong2026"].parts}
    assert {record["method"] for record in parts["Pruning"]} == {"dense", "wanda"}
    assert {record["method"] for record in parts["Precision"]} == {"dense", "quarot"}
    assert {record["model"] for record in parts["Mixture of experts"]} == {"ref-moe"}
    swept = [record for record in parts["Progressive pruning"] if record["model"] == "ref-moe"]
    assert [record["strength"] for record in swept] == [0.0, 0.2, 0.4, 0.5, 0.6]
    assert len(parts["Main results"]) == 2 * 8 and parts["Beside the published figures"] == []


def test_unreliable_runs_are_told_in_the_mean(tmp_path: Path) -> None:
    """A mean over tasks with a run that cannot be trusted names it, and no figure draws it."""
    address = str(tmp_path / "store")
    init_store(address)
    for number, task in enumerate(("one", "two")):
        items = quiz(task, 120, number)
        dense = skilled_logits(np.random.default_rng(number), items.answer, 4, 2.0)
        broken = np.full_like(dense, np.nan) if task == "two" else dense
        with open_writer(address) as writer:
            for run in (make_run(items, dense), make_run(items, broken, method="wanda", level="0.5")):
                writer.write(items, run, allow_nonfinite=True)
    found = study_records(open_runs(address, None, EVERY, with_dense=True), QUESTION)
    mean = next(record for record in found.means if record["method"] == "wanda")
    assert mean["unreliable"].startswith("includes two: ") and mean["accuracy"] is None
    shown = {section.part.title: section for section in sections(STUDIES["tong2026"], found, Tolerances())}
    assert shown["Progressive pruning"].figure is None and shown["Accuracy against set size"].figure is not None


@pytest.mark.parametrize("form", ["html", "latex", "md"])
def test_every_form_has_every_part(form: str, store: str, tmp_path: Path) -> None:
    """The document has all parts, figures beside it, and published figures; names are shown as text, and the page runs nothing."""
    reference, out, figures = tmp_path / "figures.csv", tmp_path / "study", tmp_path / "figures"
    reference.write_text("model,method,level,task,metric,value,note\nref-moe,dense,,one,accuracy,0.7,\nother,dense,,one,set_size,2,\n")
    command = ["study", "tong2026", "--store", store, "--format", form, "--out", str(out), "--figures", str(figures), "--protocol", "exact"]
    result = CliRunner().invoke(main, [*command, "--reference", str(reference)])
    assert result.exit_code == 0, result.output
    text = out.read_text()
    titles = [part.title for part in STUDIES["tong2026"].parts]
    places = [text.index(title) for title in titles]
    assert places == sorted(places)
    assert all(word in text for word in ("quarot", "w4a4", "no run", "0.700"))
    assert {path.name for path in figures.iterdir()} == {f"{name}.{end}" for name in ("precision", "progressive", "scatter")
                                                        for end in ("svg", "pdf")}  # fmt: skip
    assert form != "html" or (MARKUP not in text and "&lt;img" in text and "<script" not in text and text.count("data:image/svg") == 3)
    if form == "latex":
        assert text.count(r"\begin{table}") == text.count(r"\end{table}") > 2
        assert r"\begin{longtable}" in text and r"\includegraphics" in text
        assert complaints(text, tmp_path) == []


def test_a_study_of_dense_models_needs_no_pairs(tmp_path: Path) -> None:
    """A study of dense models alone has its tables, and says which parts the store has no runs for."""
    items = quiz("one", 100, 0)
    logits = skilled_logits(np.random.default_rng(0), items.answer, 4)
    address = str(tmp_path / "store")
    init_store(address)
    write_runs(address, items, [make_run(items, logits), make_run(items, logits, prompt="shared")])
    result = CliRunner().invoke(main, ["study", "ye2024", "--store", address, "--format", "md", "--protocol", "exact"])
    assert result.exit_code == 0 and "## Main results" in result.stdout, result.output
    result = CliRunner().invoke(main, ["study", "tong2026", "--store", address, "--format", "md", "--protocol", "exact"])
    assert result.exit_code == 0 and "The store has no run of this part yet." in result.stdout


def test_an_unknown_study_is_refused() -> None:
    """A name that is no study is wrong usage, with the known ones."""
    result = CliRunner().invoke(main, ["study", "tong2025"])
    assert result.exit_code == 2 and "tong2026, ye2024, dutta2024" in result.stderr
    with pytest.raises(UsageError):
        study_named("")
