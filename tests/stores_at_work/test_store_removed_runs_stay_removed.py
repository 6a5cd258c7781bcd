"""A run that `store rm` removed does not come back by itself: copying says who removed it and why, and `--restore` brings it back."""

import logging
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from store_tiny import tiny_items, tiny_run, write_runs

from schemas.errors import HedgemarkError, RunNotFoundError
from schemas.run import Run
from store import open_reader, open_writer
from store.cli.main import main
from store.exchange.import_runs import Words, import_runs
from store.exchange.push_pull import Wish, copy_runs
from store.exchange.zip_file import import_zip, write_zip
from store.repository import commits
from store.repository.repository import Repository, open_repository
from store.upkeep.removal import remove_runs
from store.upkeep.tag_copies import copy_tags
from store.upkeep.tags import tag_snapshot
from store.upkeep.verify import verify_store
from store.writing import writer as writing

ITEMS = tiny_items()
RUNS = [tiny_run(ITEMS, seed=seed) for seed in range(4)]
NAMES = [run.key.name for run in RUNS]


@pytest.fixture
def two(store_url: str, tmp_path: Path) -> tuple[str, str]:
    """Return two stores with the same four runs, the second pushed from the first."""
    other = str(tmp_path / "other")
    write_runs(store_url, ITEMS, RUNS)
    copy_runs(store_url, other)
    return store_url, other


def _names(url: str, at: str | None = None) -> set[str]:
    return set(open_reader(url, at).catalog["name"])


def _store(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def _remove_as_before(url: str, names: list[str], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove runs as versions did whose commits record no names."""
    with monkeypatch.context() as patched:
        patched.setattr("store.writing.removal.REMOVED", "something else")
        remove_runs(url, names, {}, reason)


@pytest.mark.parametrize("command", ["push", "pull", "zip"])
def test_a_removed_run_does_not_come_back_by_copying(
    two: tuple[str, str], tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Push, pull and the import of a zip file say in one sentence when, by whom and why; `--restore` with its name brings it back."""
    ours, other = two
    monkeypatch.setenv("HEDGEMARK_AUTHOR", "Ada")
    remove_runs(other, [NAMES[0]], {}, "wrong seed")
    write_runs(ours, ITEMS, [tiny_run(ITEMS, seed=9)])
    file = tmp_path / "ours.zip"
    write_zip(open_reader(ours).keys, file)
    argv = {"push": ["push", other, "--store", ours], "pull": ["pull", ours, "--store", other]}
    copy = argv.get(command, ["import", "zip", str(file), "--store", other])
    done = _store(*copy)
    assert done.exit_code == 0 and " 1 run " in done.stderr and "3 already there" in done.stderr
    said = next(line for line in done.stderr.splitlines() if line.startswith("not copied: "))
    assert said.startswith(f"not copied: run {NAMES[0]}, removed from {other} on 20") and said.endswith(" UTC by Ada: wrong seed")
    assert "--restore NAME" in done.stderr and NAMES[0] not in _names(other) and len(_names(other)) == 4
    done = _store(*copy, "--restore", NAMES[0][:-3])
    assert done.exit_code == 0 and "not copied" not in done.stderr and NAMES[0] in _names(other)
    assert open_reader(other).run(NAMES[0]).digest == RUNS[0].digest and verify_store(other).problems == []
    again = _store(*copy)
    assert again.exit_code == 0 and "5 already there" in again.stderr and "not copied" not in again.stderr


def test_several_removals_each_get_a_sentence(two: tuple[str, str]) -> None:
    """Runs removed together stand in one sentence with their number; `--restore` brings back those whose names begin so, and no others."""
    ours, other = two
    remove_runs(other, NAMES[:2], {}, "wrong seed")
    remove_runs(other, [NAMES[2]], {}, "double")
    done = _store("push", other, "--store", ours)
    said = [line for line in done.stderr.splitlines() if line.startswith("not copied: ")]
    assert sorted(line.rpartition(": ")[2] for line in said) == ["double", "wrong seed"]
    both = next(line for line in said if "wrong seed" in line)
    assert both.startswith("not copied: 2 runs (") and all(name in both for name in NAMES[:2])
    copied = copy_runs(ours, other, wish=Wish(restore=[NAMES[2], NAMES[0]]))
    assert set(copied.copied) == {NAMES[0], NAMES[2]} and set(copied.removed) == {NAMES[1]}
    with pytest.raises(RunNotFoundError, match="begins with 'nothing'"):
        copy_runs(ours, other, wish=Wish(restore=["nothing"]))


def test_only_the_content_that_was_removed_stays_away(two: tuple[str, str], caplog: pytest.LogCaptureFixture) -> None:
    """A run that was made anew under the same name is copied, with a sentence; when that one is removed too, both contents stay away."""
    ours, other = two
    anew = tiny_run(ITEMS, seed=0, logit_seed=7)
    remove_runs(other, [NAMES[0]], {}, "broken GPU")
    remove_runs(ours, [NAMES[0]], {}, "broken GPU")
    with caplog.at_level(logging.WARNING):
        write_runs(ours, ITEMS, [anew])
        assert copy_runs(ours, other).copied == [NAMES[0]]
    assert open_reader(other).run(NAMES[0]).digest == anew.digest
    assert f"run {NAMES[0]} is written again with other content; it was removed from {other} on 20" in caplog.text
    remove_runs(other, [NAMES[0]], {}, "also broken")
    assert copy_runs(ours, other).removed[NAMES[0]].reason == "also broken"
    remove_runs(ours, [NAMES[0]], {}, "also broken")
    write_runs(ours, ITEMS, [RUNS[0]])
    assert copy_runs(ours, other).removed[NAMES[0]].reason == "broken GPU" and NAMES[0] not in _names(other)


def test_a_removal_that_was_undone_and_done_again(two: tuple[str, str]) -> None:
    """What counts is what the store holds now; the newest removal is the one that is named."""
    ours, other = two
    remove_runs(other, [NAMES[0]], {}, "first")
    copy_runs(ours, other, wish=Wish(restore=[NAMES[0]]))
    assert copy_runs(ours, other).removed == {}
    remove_runs(other, [NAMES[0]], {}, "second")
    assert {name: removed.reason for name, removed in copy_runs(ours, other).removed.items()} == {NAMES[0]: "second"}


def test_the_other_store_keeps_what_was_removed_here(two: tuple[str, str]) -> None:
    """A removal is not copied, and push says so; two stores that removed different runs each keep the other's."""
    ours, other = two
    remove_runs(ours, [NAMES[0]], {}, "wrong seed")
    remove_runs(other, [NAMES[1]], {}, "double")
    done = _store("push", other, "--store", ours)
    kept = [line for line in done.stderr.splitlines() if line.startswith("kept in ")]
    assert len(kept) == 1 and kept[0].startswith(f"kept in {other}: run {NAMES[0]}, removed from {ours} on 20") and "wrong seed" in kept[0]
    back = copy_runs(other, ours)
    assert (set(back.removed), set(back.kept)) == ({NAMES[0]}, {NAMES[1]})
    assert _names(ours) == set(NAMES) - {NAMES[0]} and _names(other) == set(NAMES) - {NAMES[1]}
    remove_runs(other, [NAMES[0]], {}, "wrong seed")
    done = copy_runs(ours, other)
    assert done.kept == {} and set(done.removed) == {NAMES[1]}


def test_removals_by_older_versions_are_read_from_the_snapshots(two: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Their commits record no names, so what a snapshot lacks of the one before it was removed; nothing else is taken for a removal."""
    ours, other = two
    _remove_as_before(other, NAMES[:2], "wrong seed", monkeypatch)
    with open_writer(other) as writer:
        writer.write(ITEMS, tiny_run(ITEMS, seed=8))
        writer.commit("remove nothing, add one")
    found = commits.removals(open_repository(other), open_reader(other).snapshot)
    assert {name: [(one.digest, one.reason) for one in each] for name, each in found.items()} == {
        run.key.name: [(run.digest, "wrong seed")] for run in RUNS[:2]
    }
    assert set(copy_runs(ours, other).removed) == set(NAMES[:2]) and _names(other).isdisjoint(NAMES[:2])


def test_tags_bring_removed_runs_under_the_tag_alone(two: tuple[str, str]) -> None:
    """A tag keeps what it names also in the other store; its newest snapshot still lacks the removed run."""
    ours, other = two
    tag_snapshot(ours, "v1")
    remove_runs(other, [NAMES[0]], {}, "wrong seed")
    assert set(copy_runs(ours, other, "v1").removed) == {NAMES[0]}
    copy_tags(ours, other)
    assert _names(other, "v1") == set(NAMES) and NAMES[0] not in _names(other)
    remove_runs(ours, [NAMES[1]], {}, "double")
    assert set(copy_runs(other, ours, "v1").removed) == {NAMES[1]}


def test_a_copy_that_was_killed_goes_on(two: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """After half a copy the same command brings the rest, and the removed run still stays away."""
    ours, other = two
    write_runs(ours, ITEMS, [tiny_run(ITEMS, seed=seed) for seed in range(10, 14)])
    remove_runs(other, [NAMES[0]], {}, "wrong seed")
    add, added = writing.Writer.add, []

    def killed(self: writing.Writer, packed: object) -> str:
        if len(added) == 2:
            raise KeyboardInterrupt
        added.append(add(self, packed))  # type: ignore[arg-type]
        return str(added[-1])

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(writing.Writer, "add", killed)
        copy_runs(ours, other)
    assert len(_names(other)) == 3 + 2
    done = copy_runs(ours, other)
    assert len(done.copied) == 2 and set(done.removed) == {NAMES[0]} and len(_names(other)) == 7


def test_who_writes_a_removed_run_by_name_gets_it_with_a_sentence(
    store_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To import a file, or to produce the run again, is to ask for it: it is written, and the log says once that it had been removed."""
    write_runs(store_url, ITEMS, RUNS)
    remove_runs(store_url, [NAMES[0]], {}, "wrong seed")
    with caplog.at_level(logging.WARNING):
        import_runs(store_url, [(ITEMS, run) for run in RUNS], Words("import table x.csv"))
    assert NAMES[0] in _names(store_url)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and said[0].startswith(f"run {NAMES[0]} is written again; it was removed from {store_url} on 20")
    assert said[0].endswith(": wrong seed")
    caplog.clear()
    remove_runs(store_url, [NAMES[0]], {}, "x")

    def unreadable(*_: object) -> None:
        raise HedgemarkError("a snapshot is damaged")

    monkeypatch.setattr(writing, "removals", unreadable)
    with caplog.at_level(logging.WARNING):
        write_runs(store_url, ITEMS, RUNS[:1])
    assert "cannot be read from its history (a snapshot is damaged)" in caplog.text and NAMES[0] in _names(store_url)


def test_a_run_that_somebody_else_has_just_removed_is_not_removed_twice(two: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The second removal would have nothing to record; it says so and changes nothing."""
    ours, _ = two
    writable = Repository.writable

    def after_another(self: Repository) -> object:
        monkeypatch.setattr(Repository, "writable", writable)
        session = writable(self)
        self.keys_of(session).delete_group(f"runs/{NAMES[0]}")
        session.commit("remove it", metadata={"runs": 0, "removed": {NAMES[0]: RUNS[0].digest}})
        return writable(self)

    monkeypatch.setattr(Repository, "writable", after_another)
    with pytest.raises(HedgemarkError, match="another writer has just removed run"):
        remove_runs(ours, NAMES[:2], {}, "x")
    assert _names(ours) == set(NAMES[1:])


def test_a_zip_file_of_many_runs_names_the_first(store_url: str, tmp_path: Path) -> None:
    """Three names and the number of the others stand in the sentence."""
    runs: list[Run] = [tiny_run(ITEMS, seed=seed) for seed in range(6)]
    write_runs(store_url, ITEMS, runs)
    write_zip(open_reader(store_url).keys, tmp_path / "a.zip")
    remove_runs(store_url, [], {"model": ["ref-s"]}, "all wrong")
    done = import_zip(tmp_path / "a.zip", store_url)
    assert done.copied == [] and len(done.removed) == 6
    (sentence,) = commits.removed_sentences(done.removed, store_url)
    assert sentence.startswith("6 runs (") and " and 3 more), removed from " in sentence and sentence.endswith(": all wrong")
