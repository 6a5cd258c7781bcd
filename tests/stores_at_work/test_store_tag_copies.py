"""Tags travel: under a tag the other store has the same runs, whatever its newest snapshot holds, and no tag moves."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from store_tiny import tiny_items, tiny_run, write_runs

from schemas.errors import UsageError
from store import open_reader, open_writer
from store.cli.main import main
from store.exchange.push_pull import copy_runs
from store.repository.repository import open_repository
from store.upkeep.history import history
from store.upkeep.removal import remove_runs
from store.upkeep.tag_copies import copy_tags
from store.upkeep.tags import tag_snapshot
from store.upkeep.verify import verify_store


@pytest.fixture
def tagged(store_url: str) -> str:
    """Return a store whose tag v1 has two runs, v2 one of them less and one in other content, and its newest snapshot one more."""
    items, other = tiny_items(), tiny_items("facts")
    runs = [tiny_run(items, seed=seed) for seed in range(2)]
    write_runs(store_url, items, runs)
    tag_snapshot(store_url, "v1")
    remove_runs(store_url, [runs[0].key.name], {}, "wrong")
    remove_runs(store_url, [runs[1].key.name], {}, "to be replaced")
    write_runs(store_url, items, [tiny_run(items, seed=1, logit_seed=5)])
    tag_snapshot(store_url, "v2")
    write_runs(store_url, other, [tiny_run(other, seed=2)])
    return store_url


def _digests(url: str, at: str | None = None) -> dict[str, str]:
    return dict(open_reader(url, at).catalog.select("name", "digest").iter_rows())


def test_tags_name_the_same_runs_in_the_other_store(tagged: str, tmp_path: Path) -> None:
    """Removed and replaced runs come under the tags that have them; main has what push brought, and everything verifies."""
    other, items = str(tmp_path / "other"), tiny_items("more")
    copy_runs(tagged, other)
    write_runs(other, items, [tiny_run(items, seed=7)])
    main_before = _digests(other)
    assert copy_tags(tagged, other) == (["v1", "v2"], [], [], [])
    for tag in ("v1", "v2"):
        assert _digests(other, tag) == _digests(tagged, tag)
    assert len(_digests(other, "v1")) == 2 and len(_digests(other, "v2")) == 1
    assert _digests(other) == main_before
    assert verify_store(other).problems == []
    assert copy_tags(tagged, other) == ([], ["v1", "v2"], [], [])


def test_a_tag_of_other_contents_does_not_move(tagged: str, tmp_path: Path) -> None:
    """It is listed, the other tags go on, and the command ends with 5."""
    other, items = str(tmp_path / "other"), tiny_items()
    done = CliRunner().invoke(main, ["push", other, "--store", tagged, "--at", "v1", "--tags"])
    assert done.exit_code == 0 and "copied 1 tag; 0 already there" in done.stderr
    third = str(tmp_path / "third")
    copy_runs(other, third)
    write_runs(third, items, [tiny_run(items, seed=9)])
    tag_snapshot(third, "v2")
    before = _digests(third, "v2")
    done = CliRunner().invoke(main, ["pull", tagged, "--store", third, "--tags"])
    assert done.exit_code == 5 and "conflict: tag v2" in done.stdout and "tags do not move" in done.stderr
    assert _digests(third, "v2") == before and _digests(third, "v1") == _digests(tagged, "v1")


def test_without_the_option_no_tag_travels(tagged: str, tmp_path: Path) -> None:
    """As before; and a snapshot that is no tag has none to copy."""
    other = str(tmp_path / "other")
    assert CliRunner().invoke(main, ["push", other, "--store", tagged]).exit_code == 0
    assert copy_tags(other, str(tmp_path / "other")) == ([], [], [], [])
    with pytest.raises(UsageError, match="is no tag of"):
        copy_tags(tagged, other, open_reader(tagged).snapshot)


def test_a_tag_has_one_id_everywhere(store_url: str) -> None:
    """`store tag`, `log`, `show`, a reader and the refusal to move it name the snapshot that was tagged, and `--at` takes it."""
    items = tiny_items()
    snapshot = write_runs(store_url, items, [tiny_run(items)])
    run = CliRunner().invoke
    assert run(main, ["tag", "v1", "--store", store_url]).stderr == f"v1 is {snapshot}\n"
    write_runs(store_url, items, [tiny_run(items, seed=1)])
    assert run(main, ["tag", "v2", "--at", "v1", "--store", store_url]).stderr == f"v2 is {snapshot}\n"
    assert f"already names snapshot {snapshot} of" in run(main, ["tag", "v1", "--store", store_url]).stderr
    rows = {row["snapshot"]: row["tags"] for row in history(store_url).to_dicts()}
    assert rows[snapshot] == "v1 v2" and sum(map(bool, rows.values())) == 1
    assert history(store_url, "v1")["snapshot"][0] == history(store_url, snapshot)["snapshot"][0] == snapshot
    own = open_repository(store_url).tags()["v1"]  # the tag's commit, whose id versions before printed
    for at in ("v1", "v2", snapshot, own):
        reader = open_reader(store_url, at)
        assert reader.snapshot == snapshot and len(reader.catalog) == 1
    assert verify_store(store_url).problems == []


def test_notes_and_authors_travel_with_tags(store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copied tag, and the copy of the copy, have the author and note of what was tagged; the push has its own on its own commit."""
    items, url = tiny_items(), store_url
    with open_writer(url, note="first figures", author="Ada") as writer:
        writer.write(items, tiny_run(items))
    tag_snapshot(url, "v1")
    write_runs(url, items, [tiny_run(items, seed=1)])
    tag_snapshot(url, "v2")
    monkeypatch.setenv("HEDGEMARK_AUTHOR", "Bob")
    for other in (str(tmp_path / "second"), str(tmp_path / "third")):
        assert CliRunner().invoke(main, ["push", other, "--store", url, "--tags", "--message", "to the bucket"]).exit_code == 0
        rows = {row["tags"] or row["message"]: (row["author"], row["note"]) for row in history(other).to_dicts()}
        assert rows["v1"] == ("Ada", "first figures") and rows["v2"] == ("Bob", "to the bucket")
        assert rows[f"copy runs from .../{Path(url).name}"] == ("Bob", "to the bucket")
        top = history(other, "v1").to_dicts()[0]
        assert (top["tags"], top["author"], top["note"]) == ("v1", "Ada", "first figures")
        assert open_reader(other, "v1").snapshot == top["snapshot"] and verify_store(other).problems == []
        url = other
