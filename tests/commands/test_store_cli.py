"""The command `store`: every command answers, prints what it should, and fails in one sentence."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click import Group
from click.testing import CliRunner, Result
from first_line import after_first_line
from store_tiny import tiny_items, tiny_run, write_runs

from store.cli.imports import import_
from store.cli.items import items
from store.cli.main import main


def _store(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture
def filled(store_url):
    """Return the address of a store with two runs."""
    items = tiny_items(n_items=200)
    write_runs(store_url, items, [tiny_run(items, model=model) for model in ("ref-s", "ref-l")])
    return store_url


COMMANDS = [*main.commands.values(), *import_.commands.values(), *items.commands.values()]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_help_an_example_and_a_store(command):
    """Each command says in one line what it does, shows an example, and takes --store unless it only looks at item files."""
    help_ = command.help or ""
    assert help_.splitlines()[0].endswith(".") and "Example: store " in help_
    without_store = isinstance(command, Group) or command in items.commands.values()
    assert without_store or any(parameter.name == "store_url" for parameter in command.params)


def test_gc_of_an_age_beyond_the_calendar(filled):
    """`gc --older-than 900000` is wrong usage, not an overflow."""
    assert _store("gc", "--older-than", "900000", "--store", filled).exit_code == 2


def test_help_imports_nothing_heavy():
    """`store --help` does without icechunk, zarr, polars and torch."""
    code = "import sys, store.cli.main; print(sorted({'icechunk', 'zarr', 'polars', 'torch', 'numpy'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_ls_prints_the_runs_it_was_asked_for(filled):
    """Filters narrow the list, and the formats hold the same runs."""
    assert len(_store("ls", "--store", filled).stdout.splitlines()) == 3
    rows = json.loads(_store("ls", "--store", filled, "--model", "ref-s", "--format", "json").stdout)
    assert [row["model"] for row in rows] == ["ref-s"] and len(rows[0]["digest"]) == 64
    assert _store("ls", "--store", filled, "--format", "csv").stdout.startswith("name,model,")


def test_ls_of_an_unknown_value_lists_what_is_there(filled):
    """A filter that matches nothing names the values there are."""
    result = _store("ls", "--store", filled, "--model", "llama")
    assert result.exit_code == 5 and "known: ref-l, ref-s" in result.output


def test_ls_takes_a_level_in_any_spelling(store_url):
    """`store ls --level .50` lists the runs of level 0.5, and a level that no run has is named with those there are."""
    items = tiny_items()
    write_runs(store_url, items, [tiny_run(items, method="wanda", level=level) for level in ("0.5", "0.3")])
    rows = json.loads(_store("ls", "--store", store_url, "--level", ".50", "--format", "json").stdout)
    assert [row["level"] for row in rows] == ["0.5"]
    result = _store("ls", "--store", store_url, "--level", "0.70")
    assert result.exit_code == 5 and "no run with level '0.7'" in result.output and "known: 0.3, 0.5" in result.output


def test_show_describes_store_and_run(filled):
    """`show` prints the store, or a run found by the start of its name."""
    assert "runs       2" in _store("show", "--store", filled).stdout
    record = json.loads(_store("show", "ref-s", "--store", filled, "--format", "json").stdout)
    assert record["key"]["model"] == "ref-s" and record["env"]["libraries"] == {"numpy": "2.0"}
    assert "2 runs begin with 'ref'" in _store("show", "ref", "--store", filled).output


def test_log_lists_commits_newest_first(filled):
    """`log` shows each commit with the runs it wrote."""
    rows = json.loads(_store("log", "--store", filled, "--format", "json").stdout)
    assert [row["runs"] for row in rows] == [2, 0, 0] and rows[0]["message"] == "add 2 runs"


def test_verify_passes_a_good_store(filled):
    """A good store verifies with exit 0 and says what was read."""
    result = _store("verify", "--store", filled)
    assert result.exit_code == 0 and "read 2 runs and 1 item set in" in result.stderr and result.stdout == ""


def test_verify_lists_what_is_wrong(filled):
    """A flipped bit in a chunk is reported with the run's name and exit 4."""
    largest = max((Path(filled) / "chunks").iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    result = _store("verify", "--store", filled)
    assert result.exit_code == 4 and "damaged" in result.stdout and "Traceback" not in result.output


@pytest.mark.parametrize("command", ["ls", "show", "log", "verify"])
def test_no_store_and_not_a_store(command, tmp_path):
    """A missing store exits 5, a file 4, each with one line."""
    (tmp_path / "file").write_text("x")
    missing, file = _store(command, "--store", str(tmp_path / "none")), _store(command, "--store", str(tmp_path / "file"))
    assert (missing.exit_code, file.exit_code) == (5, 4)
    assert f"there is no store at {tmp_path / 'none'}; name yours with --store, or create one with: store init" in missing.output
    for done in (missing, file):
        assert len(after_first_line(done.output) if command == "verify" else done.output.splitlines()) == 1


def test_init_creates_and_keeps(tmp_path):
    """`init` creates a store, and leaves an existing one alone."""
    address = str(tmp_path / "a" / "b")
    assert _store("init", "--store", address).exit_code == 0
    assert _store("init", "--store", address).exit_code == 0
    assert json.loads(_store("ls", "--store", address, "--format", "json").stdout) == []


def test_store_without_its_branch_is_damaged_not_missing(filled):
    """A store whose branch file is gone exits 4."""
    shutil.rmtree(Path(filled) / "refs" / "branch.main")
    assert _store("verify", "--store", filled).exit_code == 4


@pytest.mark.parametrize("name", ["x.zip", "x.parquet"])
def test_export_to_where_nothing_can_be_written(filled, tmp_path, name):
    """An export into a folder that is not there is one sentence, exit code 5, and no traceback."""
    result = _store("export", str(tmp_path / "none" / name), "--store", filled)
    assert result.exit_code == 5 and "cannot be written" in result.output and len(after_first_line(result.output)) == 1


def test_store_below_a_file_cannot_be_made(tmp_path):
    """A store whose parent is a file ends in one sentence, and the file stays."""
    (tmp_path / "file").write_text("x")
    result = _store("init", "--store", str(tmp_path / "file" / "store"))
    assert result.exit_code == 5 and len(result.output.splitlines()) == 1 and (tmp_path / "file").read_text() == "x"


def test_items_check_lists_lines_without_a_store_or_torch(tmp_path):
    """`items check` names the line and what is wrong, shows a right item, and exits 2; doubts alone exit 0."""
    path = tmp_path / "task.jsonl"
    rows = [{"id": i, "question": f"q{i}", "choices": {"A": "x", "B": "y"}, "answer": "AB"[i % 2]} for i in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0] | {"id": 7}]))
    result = _store("items", "check", str(path), "--format", "json")
    assert result.exit_code == 0 and "read 4 items; wrong: 0, doubtful: 1" in result.stderr
    assert [(row["line"], row["id"], row["how"]) for row in json.loads(result.stdout)] == [(4, "7", "doubtful")]
    path.write_text("".join(json.dumps(row | {"nr": 1}) + "\n" for row in rows))
    result = _store("items", "check", str(path), "--format", "json")
    assert [(row["line"], row["what"]) for row in json.loads(result.stdout)] == [(None, "unknown key 'nr' is ignored (in 3 items)")]
    path.write_bytes(b"\xa0\n")
    result = _store("items", "check", str(path), "--format", "json")
    assert result.exit_code == 2 and [row["how"] for row in json.loads(result.stdout)] == ["wrong"]
    assert all("line 1 has byte 0xa0; save it as UTF-8" in stream for stream in (result.stdout, result.stderr))
    path.write_text("\n".join(json.dumps(row) for row in [*rows, rows[0] | {"id": 8, "answer": "C"}]))
    result = _store("items", "check", str(path))
    assert result.exit_code == 2 and "'C' is none of its options A, B" in result.stdout and '"answer": "B"' in result.stderr
    code = f"import sys; from store.cli.main import main; main(['items', 'check', {str(path)!r}], standalone_mode=False)"
    check = subprocess.run(
        [sys.executable, "-c", f"try:\n    exec({code!r})\nfinally:\n    import sys; print('torch' in sys.modules)"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert check.stdout.endswith("False\n")


def test_a_table_without_rows_is_said_in_words(tmp_path):
    """On stderr, so that stdout stays empty for a program; a difference of two equal snapshots has none."""
    url = str(tmp_path / "store")
    assert _store("init", "--store", url).exit_code == 0
    listed = _store("ls", "--store", url)
    assert (listed.exit_code, listed.stdout, listed.stderr.strip()) == (0, "", "no runs")
    snapshot = _store("log", "--store", url, "--format", "json")
    first = json.loads(snapshot.stdout)[0]["snapshot"]
    same = _store("diff", first, "--store", url)
    assert (same.exit_code, same.stdout, same.stderr.strip()) == (0, "", "no difference")
