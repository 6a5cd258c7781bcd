"""`store rm`, and who changed a store and why: nothing of its history is lost, and the log says what happened."""

import json
from contextlib import nullcontext
from pathlib import Path

import icechunk
import pytest
from click.testing import CliRunner
from store_tiny import tiny_items, tiny_run, write_runs

from schemas.errors import HedgemarkError, RunNotFoundError, UsageError
from store import open_reader, open_writer
from store.cli.main import main
from store.repository.repository import Repository
from store.upkeep.history import diff_snapshots, history
from store.upkeep.removal import remove_runs
from store.upkeep.tags import tag_snapshot
from store.upkeep.verify import verify_store


@pytest.fixture
def filled(store_url: str) -> tuple[str, list[str]]:
    """Return a store with two models at three seeds, tagged v1, and the names of its runs."""
    items = tiny_items()
    runs = [tiny_run(items, model, seed, method="wanda", level=f"0.{1 + seed}") for model in ("a", "b") for seed in range(3)]
    write_runs(store_url, items, runs)
    tag_snapshot(store_url, "v1")
    return store_url, [run.key.name for run in runs]


def test_a_removal_is_a_commit_with_a_reason_and_the_tag_keeps_all(filled: tuple[str, list[str]]) -> None:
    """The newest snapshot lacks the runs; the tag, the snapshot before, and `diff` to now still show them."""
    url, names = filled
    before = open_reader(url).snapshot
    done = remove_runs(url, [], {"model": ["a"], "level": [".10", "0.2"]}, "wrong\n tokenizer")
    assert done.names == sorted(names[:2]) and sorted(open_reader(url).catalog["name"]) == sorted(names[2:])
    assert len(open_reader(url, "v1").catalog) == len(open_reader(url, before).catalog) == len(names)
    top = history(url).to_dicts()[0]
    assert (top["snapshot"], top["runs"], top["message"], top["note"]) == (done.snapshot, 0, "remove 2 runs", "wrong tokenizer")
    assert diff_snapshots(url, "v1").rows() == [("removed", name, None, None) for name in sorted(names[:2])]
    assert verify_store(url).problems == [] == verify_store(url, "v1").problems


def test_runs_are_named_by_a_unique_beginning(filled: tuple[str, list[str]]) -> None:
    """As `store show` takes names; a name beside a filter must satisfy both."""
    url, names = filled
    beginning = names[0].rpartition(".")[0] + "." + names[0].rpartition(".")[2][:6]
    with pytest.raises(UsageError, match="does not have the values"):
        remove_runs(url, [beginning], {"model": ["b"]}, "x")
    with pytest.raises(UsageError, match="runs begin with"):
        remove_runs(url, ["a~"], {}, "x")
    with pytest.raises(RunNotFoundError):
        remove_runs(url, ["c~"], {}, "x")
    with pytest.raises(RunNotFoundError, match="no run with model 'c'"):
        remove_runs(url, [], {"model": ["c"]}, "x")
    for path in ("./a", "some/where/a/", "~/a.gguf"):
        with pytest.raises(RunNotFoundError, match=r"; runs of a folder or file are stored under its name, so give 'a'; known: a, b$"):
            remove_runs(url, [], {"model": [path]}, "x")
    assert remove_runs(url, [beginning, names[0]], {}, "x").names == [names[0]]
    assert history(url)["message"][0] == f"remove {names[0]}"


@pytest.mark.parametrize(("names", "reason", "said"), [(["a~"], "  ", "needs a reason"), ([], "x", "name the runs to remove, or select")])
def test_a_removal_of_everything_or_without_a_reason_is_refused(
    filled: tuple[str, list[str]], names: list[str], reason: str, said: str
) -> None:
    """Neither can happen by a forgotten argument."""
    url, _ = filled
    before = open_reader(url).snapshot
    with pytest.raises(UsageError, match=said):
        remove_runs(url, names, {"model": ()}, reason)
    assert open_reader(url).snapshot == before


def test_other_writers_lose_nothing(filled: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is added meanwhile stays; a run that is replaced meanwhile is not removed."""
    url, names = filled
    items, writable = tiny_items(), Repository.writable

    def beside(run: object, *, replace: bool) -> None:
        def first_commit_of_another(self: Repository) -> icechunk.Session:
            session = writable(self)
            monkeypatch.setattr(Repository, "writable", writable)
            monkeypatch.setattr(Repository, "lock", lambda _: nullcontext())
            with open_writer(url) as writer:
                writer.write(items, run, replace=replace)  # type: ignore[arg-type]
            return session

        monkeypatch.setattr(Repository, "writable", first_commit_of_another)

    beside(tiny_run(items, "c"), replace=False)
    remove_runs(url, [names[0]], {}, "x")
    now = set(open_reader(url).catalog["name"])
    assert len(now) == len(names) and names[0] not in now and any(name.startswith("c~") for name in now)
    beside(tiny_run(items, "a", 1, logit_seed=9, method="wanda", level="0.2"), replace=True)
    with pytest.raises(HedgemarkError, match="a writer changed one of these runs; nothing was removed"):
        remove_runs(url, [names[1]], {}, "x")
    assert names[1] in set(open_reader(url).catalog["name"])
    monkeypatch.undo()


def test_author_and_note_stand_in_the_log(filled: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HEDGEMARK_AUTHOR and --message go with every commit of push, import and rm; without them nothing is recorded."""
    url, names = filled
    assert history(url)["author"].to_list() == [""] * len(history(url))
    monkeypatch.setenv("HEDGEMARK_AUTHOR", "Ada L. <ada@example.org>")
    other, run = str(tmp_path / "other"), CliRunner().invoke
    assert run(main, ["push", other, "--store", url, "--message", "for the paper"]).exit_code == 0
    assert run(main, ["export", str(tmp_path / "x.zip"), "--store", url]).exit_code == 0
    done = run(main, ["rm", names[0], "--store", other, "--message", "double"])
    assert done.exit_code == 0 and done.stdout == f"{names[0]}\n" and f"removed 1 run from {other}" in done.stderr
    back = ["import", "zip", str(tmp_path / "x.zip"), "--store", other, "--message", "again", "--restore", names[0]]
    assert run(main, back).exit_code == 0
    rows = json.loads(run(main, ["log", "--store", other, "--format", "json"]).stdout)
    assert [row["note"] for row in rows[:3]] == ["again", "double", "for the paper"]
    assert {row["author"] for row in rows[:3]} == {"Ada L. <ada@example.org>"}
    assert [row["note"] for row in rows[3:]] == ["", ""]
    assert "Ada L." in run(main, ["log", "--store", other]).stdout


def test_notes_are_short_and_hold_no_paths(store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token or a path of this machine does not leave it by way of a note; a novel is refused before anything is read."""
    with pytest.raises(UsageError, match="500 are stored"):
        open_writer(store_url, note="x" * 501)
    items = tiny_items()
    with open_writer(store_url, note=f"from {tmp_path}/secret hf_abcdefghijklmnop") as writer:
        writer.write(items, tiny_run(items))
    assert history(store_url)["note"][0] == "from .../secret [redacted]"
    monkeypatch.setenv("HEDGEMARK_AUTHOR", "x" * 101)
    with pytest.raises(UsageError, match="HEDGEMARK_AUTHOR has 101 characters"):
        open_writer(store_url)


def test_a_dry_run_removes_nothing(filled: tuple[str, list[str]]) -> None:
    """It prints the names that would go."""
    url, names = filled
    before = open_reader(url).snapshot
    done = CliRunner().invoke(main, ["rm", "--model", "b", "--dry-run", "--store", url])
    assert done.stdout.split() == sorted(names[3:]) and "would remove 3 runs" in done.stderr
    refused = CliRunner().invoke(main, ["rm", "--model", "b", "--store", url])
    assert refused.exit_code == 2 and "a removal needs a reason" in refused.stderr
    assert open_reader(url).snapshot == before
