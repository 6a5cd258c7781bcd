"""Plug-ins: a package with entry points is used by name, and a broken one is a sentence that names the package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from first_line import after_first_line

CODE = """
import click, numpy as np
from schemas.items import Item
from schemas.itemset import build_item_set
from store.command import EXISTING_FILE
from store.importers.importer import Importer, imported_run


def flat(probs, *, slope=2.0):
    return slope * (1 - probs)


def needs_number(probs, *, slope):
    return probs


def with_gaps(probs):
    return np.full(probs.shape, np.nan)


def read(file, described):
    rows = [line.split() for line in file.read_text().splitlines()]
    items = build_item_set(described.task, [Item(id=i, answer=a) for i, a, *_ in rows], n_options=[len(row) - 2 for row in rows])
    yield items, imported_run(described, items, np.array([row[2:] for row in rows], np.float32), "a line each")


IMPORTER = Importer(read, "Import lines.", [click.Argument(["file"], type=EXISTING_FILE)], described=True)


def chemistry():
    return [Item(id=str(i), question=f"What is {i}?", choices={"A": "salt", "B": "acid"}, answer="AB"[i % 2]) for i in range(12)]


def nothing():
    return []


NUMBER = 7
"""


def install(folder: Path, package: str, entry_points: str) -> None:
    """Put a package with its metadata into a folder, as pip would."""
    name = package.replace("-", "_")
    (folder / f"{name}.py").write_text(CODE, encoding="utf-8")
    metadata = folder / f"{name}-1.5.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(entry_points, encoding="utf-8")


def run(folder: Path, module: str, *arguments: str, expected: int = 0) -> subprocess.CompletedProcess[str]:
    """Run one of the commands in a process that finds the folder's packages."""
    environment = os.environ | {"PYTHONPATH": str(folder), "HEDGEMARK_STORE": str(folder / "store")}
    code = f"from {module}.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == expected, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_a_scorer_and_an_importer_of_a_package_are_used_by_name(tmp_path: Path) -> None:
    """Its parameter counts, its sets are those of 1 - p, and no predictor is made with it."""
    install(tmp_path, "hedge-more", "[hedgemark.scorers]\nflat = hedge_more:flat\n[hedgemark.importers]\nplain = hedge_more:IMPORTER\n")
    lines = [f"q{i} {'ABC'[i % 3]} {i % 5} {i % 7} {i % 2}" for i in range(60)]
    (tmp_path / "lines.txt").write_text("\n".join(lines), encoding="utf-8")
    assert "plain" in run(tmp_path, "store", "import", "--help").stdout
    run(tmp_path, "store", "import", "plain", "--model", "m", "--task", "quiz", str(tmp_path / "lines.txt"))
    words = ["sets", "--format", "json", "--scorer"]
    [ours] = json.loads(run(tmp_path, "analyzer", *words, "lac").stdout)
    [theirs] = json.loads(run(tmp_path, "analyzer", *words, "flat", "--parameter", "flat.slope=4").stdout)
    assert theirs == ours | {"scorer": "flat", "parameters": "slope=4"}
    refused = run(tmp_path, "analyzer", "calibrate", "--scorer", "flat", "--alpha", "0.2", "--out", str(tmp_path / "p.json"), expected=2)
    assert "is of package hedge-more 1.5" in refused.stderr and not (tmp_path / "p.json").exists()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("flat = hedge_more:absent", "cannot be loaded: AttributeError"),
        ("flat = no_such_module:flat", "cannot be loaded: ModuleNotFoundError"),
        ("flat = hedge_more:NUMBER", "it is a int, not a function"),
        ("flat = hedge_more:needs_number", "need numbers as defaults"),
        ("lac = hedge_more:flat", "is called like one of Hedgemark"),
        ("Flat = hedge_more:flat", "must rename it"),
    ],
)
def test_a_broken_plug_in_is_a_sentence_that_names_its_package(tmp_path: Path, entry: str, said: str) -> None:
    """Whether it cannot be loaded, is something else, or has a name that is taken."""
    install(tmp_path, "hedge-more", f"[hedgemark.scorers]\n{entry}\n")
    stderr = run(tmp_path, "analyzer", "sets", expected=5).stderr
    assert "package hedge-more 1.5 (hedgemark.scorers)" in stderr and said in stderr and len(after_first_line(stderr)) == 1
    run(tmp_path, "store", "--help")  # what does not use scorers goes on


def test_two_packages_with_one_name_are_refused(tmp_path: Path) -> None:
    """Neither silently replaces the other; both are named."""
    for package in ("hedge-more", "hedge-other"):
        install(tmp_path, package, f"[hedgemark.importers]\nplain = {package.replace('-', '_')}:IMPORTER\n")
    stderr = run(tmp_path, "store", "import", "plain", expected=5).stderr
    assert "package hedge-other 1.5" in stderr and "called like one of package hedge-more 1.5" in stderr


def test_scores_of_a_plug_in_are_checked(tmp_path: Path) -> None:
    """A number is missing for an option: no set can be made, and none is."""
    install(tmp_path, "hedge-more", "[hedgemark.scorers]\ngaps = hedge_more:with_gaps\n[hedgemark.importers]\nx = hedge_more:IMPORTER\n")
    (tmp_path / "lines.txt").write_text("\n".join(f"q{i} A 1 0" for i in range(30)), encoding="utf-8")
    run(tmp_path, "store", "import", "x", "--model", "m", "--task", "quiz", str(tmp_path / "lines.txt"))
    assert "scorer gaps returned" in run(tmp_path, "analyzer", "sets", "--scorer", "gaps", expected=2).stderr


@pytest.mark.producer
def test_a_task_of_a_package_is_asked_and_a_method_is_checked(tmp_path: Path) -> None:
    """Its items are stored; a task without items, and a method that is none, are sentences."""
    pytest.importorskip("torch")
    install(tmp_path, "hedge-more", "[hedgemark.tasks]\nchemistry = hedge_more:chemistry\nempty = hedge_more:nothing\n")
    listed = run(tmp_path, "producer", "--list", "tasks").stdout
    assert "chemistry  package hedge-more 1.5" in listed
    run(tmp_path, "producer", "--model", "ref-s", "--task", "chemistry", "--prompt", "base")
    assert "items 12 " in run(tmp_path, "analyzer", "sets").stdout
    empty = run(tmp_path, "producer", "--model", "ref-s", "--task", "empty", expected=2).stderr
    assert "task 'empty' of package hedge-more 1.5 makes no items" in empty
    install(tmp_path, "hedge-other", "[hedgemark.methods]\nsqueeze = hedge_other:flat\n")
    assert "it is a function, not a Method" in run(tmp_path, "producer", "--list", "methods", expected=5).stderr
