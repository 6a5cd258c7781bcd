"""Imports and copies say now and then how far they are, in lines of stderr that a log file keeps."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from store_tiny import tiny_items, tiny_run, write_runs

from store import init_store, open_reader
from store.cli.main import main
from store.exchange import progress
from store.exchange.parquet_file import write_parquet
from store.exchange.progress import told
from store.exchange.zip_file import write_zip


def test_a_line_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said of what is done at once; of twelve steps of two seconds every third gets a line."""
    clock, lines = iter(range(0, 100, 2)), list[str]()
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(told("abcdefghijkl", "wrote", lines.append, 12)) == list("abcdefghijkl")
    assert lines == [f"wrote {number} of 12 runs ..." for number in (3, 6, 9, 12)]
    assert list(told("ab", "read", lines.append)) == ["a", "b"] and len(lines) == 4


def test_imports_and_copies_tell_how_far_they_are(store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each says on stderr what it begins with, and then a line now and then; stdout has none of it."""
    monkeypatch.setattr(progress, "EVERY_S", 0)
    items, other = tiny_items(), str(tmp_path / "other")
    write_runs(store_url, items, [tiny_run(items, seed=seed) for seed in range(3)])
    write_zip(open_reader(store_url).keys, tmp_path / "a.zip")
    for command, first, later in (
        (["push", other, "--store", store_url], "copying runs from", "copied 2 of 3 runs ..."),
        (["import", "zip", str(tmp_path / "a.zip"), "--store", str(tmp_path / "b")], "importing a.zip into", "copied 2 of 3 runs ..."),
    ):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0 and done.stderr.startswith(first) and later in done.stderr.splitlines() and done.stdout == ""
    one = str(tmp_path / "one")
    init_store(one)
    write_runs(one, items, [tiny_run(items)])
    write_parquet(open_reader(one).keys, tmp_path / "t.parquet")
    done = CliRunner().invoke(main, ["import", "table", str(tmp_path / "t.parquet"), "--store", str(tmp_path / "c")])
    assert done.exit_code == 0, done.output
    assert done.stderr.splitlines()[1:3] == ["read 1 run ...", "wrote 1 of 1 run ..."] and done.stdout == ""
