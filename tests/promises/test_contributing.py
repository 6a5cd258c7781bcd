"""The recipes of docs/contributing.md, followed to the letter in a copy of the project: one file and one line are enough."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("analyzer", "docs", "producer", "schemas", "store", "tests", "pyproject.toml")


class Recipe:
    """One section of the page: the file it adds, the line it adds, and the files of its sample by name."""

    def __init__(self, heading: str) -> None:
        page = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
        text = page.split(f"## {heading}")[1].split("\n## ")[0]
        blocks = re.findall(r"^ *```(\w+) ?(\S*)\n(.*?)^ *```", text, re.S | re.M)
        self.file = Path(re.search(r"\*\*The file\*\*, `([^`]+)`", text)[1])
        self.code = next(dedent(body) for language, _, body in blocks if language == "python")
        self.samples = {name: dedent(body) for _, name, body in blocks if name}
        step = re.search(r"\*\*The line\*\*(.*?)\n\d\. ", text, re.S)[1]
        self.registry = Path(re.search(r"`(\S+/__init__\.py)`", step)[1])
        self.entry = re.search(r"`(\"[^`]+,)`", step)[1]
        own_import = re.search(r"`(from [^`]+)`", step)
        self.imported = own_import[1] if own_import else f"from {'.'.join(self.file.parent.parts)} import {self.file.stem}"

    def follow(self, folder: Path) -> None:
        """Copy the project to a folder and do there what the page says."""
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name, **({"ignore": shutil.ignore_patterns("__pycache__")} if (ROOT / name).is_dir() else {}))
        (folder / self.file).write_text(self.code, encoding="utf-8")
        registry = folder / self.registry
        text = registry.read_text(encoding="utf-8").replace("\nfrom ", f"\n{self.imported}\nfrom ", 1)
        start = text.index("] = {")  # of the annotated dict: `SCORERS: dict[str, Scorer] = {`
        end = text.index("\n}", start)
        registry.write_text(f"{text[:end]}\n    {self.entry}{text[end:]}", encoding="utf-8")


def run(folder: Path, *arguments: str) -> str:
    """Run Python in the copy and return what it printed."""
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def contract_tests(folder: Path, name: str, *files: str) -> int:
    """Run the tests of a new name in the copy and return how many passed; one that fails is shown."""
    said = run(folder, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "-m", "not slow", "-k", name, *files)
    return said.count("\nPASSED ")


def test_a_scorer_is_one_file_and_one_line(tmp_path: Path) -> None:
    """The scorer of the recipe scores a store with its parameter, and the tests over all scorers hold for it."""
    Recipe("Add a scorer").follow(tmp_path)
    options = ["--scorer", "entropy", "--parameter", "entropy.weight=0.2", "--format", "csv"]
    make = "init_store('s'); items = tiny_items(n_items=60); write_runs('s', items, [tiny_run(items)])"
    run(tmp_path, "-c", f"import sys; sys.path.insert(0, 'tests/support'); from store_tiny import *; from store import init_store; {make}")
    printed = run(tmp_path, "-c", f"from analyzer.cli.main import main; main(['sets', '--store', 's', *{options}])")
    assert ",entropy," in printed and "0.2" in printed
    files = "tests/promises/test_analyzer_scorers_golden.py", "tests/numbers/test_analyzer_groups.py"
    assert contract_tests(tmp_path, "entropy", *files) >= 4


def test_an_importer_is_one_file_and_one_line(tmp_path: Path) -> None:
    """The importer of the recipe and its sample pass every test that importers have."""
    recipe = Recipe("Add an importer")
    recipe.follow(tmp_path)
    sample = tmp_path / "tests" / "golden" / "importers" / "plain-json"
    sample.mkdir()
    for name, content in recipe.samples.items():
        (sample / name).write_text(content, encoding="utf-8")
    with (tmp_path / "docs" / "foreign_files.md").open("a", encoding="utf-8") as page:
        page.write("\n## JSON\n\n`store import plain-json` reads an object of rows.\n")
    assert contract_tests(tmp_path, "plain-json", "tests/promises/test_importers_contract.py") >= 4


@pytest.mark.slow
@pytest.mark.producer
def test_a_method_is_one_file_and_one_line(tmp_path: Path) -> None:
    """The method of the recipe compresses a model, and the tests over all methods hold for it."""
    Recipe("Add a method").follow(tmp_path)
    command = ["--model", "ref-s", "--task", "urn", "--limit", "20", "--method", "random", "--level", "0.5", "--store", "s"]
    assert "random" in run(tmp_path, "-m", "producer", *command)
    assert contract_tests(tmp_path, "random", "tests/promises/test_producer_methods_contract.py", "tests/methods_of_compression") >= 8
