"""What every importer promises, over the registry. A new one brings a folder `tests/golden/importers/NAME`, and is listed nowhere else.

The folder holds a small file of its kind, `arguments.txt` for the command, and `expected.json`: the runs that must come out.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from first_line import after_first_line

from store import open_reader
from store.cli.main import main
from store.importers import IMPORTERS

GOLDEN = Path(__file__).parents[1] / "golden" / "importers"
NAMES = ("model", "method", "level", "task", "prompt")
NOT_INPUT = ("arguments.txt", "expected.json")


@pytest.fixture(params=[*IMPORTERS])
def sample(request, tmp_path, monkeypatch):
    """Return an importer's name; its sample lies in the current folder."""
    folder = GOLDEN / request.param
    assert folder.is_dir(), f"add {folder} with a small sample, arguments.txt and expected.json"
    shutil.copytree(folder, tmp_path / "sample")
    monkeypatch.chdir(tmp_path / "sample")
    return request.param


def _import(name: str, url: object) -> Result:
    arguments = shlex.split(Path("arguments.txt").read_text())
    return CliRunner().invoke(main, ["import", name, "--store", str(url), *arguments])


def _inputs() -> list[Path]:
    return sorted(path for path in Path().rglob("*") if path.is_file() and path.name not in NOT_INPUT)


def test_the_sample_comes_in_as_its_writer_meant_it(sample, tmp_path):
    """Names, answers, numbers of options and logits are those of `expected.json`, and each run says which file it came from."""
    result = _import(sample, tmp_path / "store")
    assert result.exit_code == 0, result.output
    reader = open_reader(str(tmp_path / "store"))
    expected = json.loads(Path("expected.json").read_text())
    assert len(reader.catalog) == len(expected)
    assert f"imported {'1 run' if len(expected) == 1 else f'{len(expected)} runs'} into " in result.stderr
    for row, wanted in zip(reader.catalog.to_dicts(), expected, strict=True):
        run = reader.run(row["name"])
        items = reader.items(run.key.items_hash)
        assert {field: getattr(run.key, field) for field in NAMES} == {field: wanted[field] for field in NAMES}
        assert items.answer.tolist() == wanted["answer"] and items.n_options.tolist() == wanted["n_options"]
        np.testing.assert_array_equal(run.logits, np.array(wanted["logits"], dtype=np.float32))
        assert "sha256:" in run.env.origin and any(path.name in run.env.origin for path in _inputs())


def test_importing_twice_adds_no_commit(sample, tmp_path):
    """The same files a second time change nothing."""
    snapshots = set()
    for _ in range(2):
        assert _import(sample, tmp_path / "store").exit_code == 0
        snapshots.add(open_reader(str(tmp_path / "store")).snapshot)
    assert len(snapshots) == 1


@pytest.mark.parametrize("damage", ["empty", "cut", "binary", "other"])
def test_a_damaged_file_is_one_sentence_and_writes_nothing(sample, tmp_path, damage):
    """An input file that is empty, cut, or something else altogether is refused without a traceback, and no store is made."""
    for number, path in enumerate(_inputs()):
        whole = path.read_bytes()
        broken = {"empty": b"", "cut": whole[: len(whole) * 2 // 5], "binary": bytes(range(256)), "other": b'{"a": [1, 2]}\n'}
        path.write_bytes(broken[damage])
        result = _import(sample, tmp_path / f"store{number}")
        path.write_bytes(whole)
        assert result.exit_code in (2, 5), f"{path}: {result.output}"
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert len(after_first_line(result.output)) == 1 and not (tmp_path / f"store{number}").exists()


def test_every_importer_has_help_and_an_example(sample):
    """The command made from the importer says in one line what it does, shows an example, and takes --store."""
    result = CliRunner().invoke(main, ["import", sample, "--help"])
    assert f"Example: store import {sample} " in result.stdout and "--store URL" in result.stdout and "--replace" in result.stdout
    assert sample in CliRunner().invoke(main, ["import", "--help"]).stdout


def test_every_importer_says_what_it_checks(sample):
    """What each reader checks and refuses stands in `docs/foreign_files.md`."""
    page = (Path(__file__).parents[2] / "docs" / "foreign_files.md").read_text(encoding="utf-8")
    assert re.search(rf"store import {sample}(?![\w-])", page), f"name 'store import {sample}' in docs/foreign_files.md"


def test_importers_do_without_torch():
    """Reading foreign files needs no torch."""
    code = "import sys, store.importers; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
