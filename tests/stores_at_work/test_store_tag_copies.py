"""Tags travel: under a tag the other store has the same runs, whatever its newest snapshot holds, and no tag moves."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from store_tiny import tiny_items, tiny_run, write_runs

from schemas.errors import UsageError
from store import open_reader
from store.cli.main import main
from store.exchange.push_pull import copy_runs
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
