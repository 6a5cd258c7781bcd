"""Stores of every schema version are read, and migrated where they are old."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from store_tiny import tiny_items, tiny_run, write_runs

from schemas.digest import json_digest
from schemas.errors import StoreInvalidError
from schemas.json_text import json_bytes
from schemas.layout import SCHEMA_VERSION, group_document, sealed
from schemas.migrate import STEPS, migrate_nodes
from schemas.run import RunKey
from store import init_store, open_reader
from store.backend.session_keys import SessionKeys
from store.exchange.zip_file import import_zip, write_zip
from store.format.root import root_nodes, stored_schema
from store.repository.repository import open_repository
from store.upkeep.history import history
from store.upkeep.migration import migrate_store
from store.upkeep.verify import verify_store

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_golden_store_is_read(tmp_path, version):
    """The golden store of each version opens, verifies, and holds the numbers it was made with."""
    url = str(tmp_path / "store")
    import_zip(GOLDEN / f"store_v{version}.zip", url)
    assert verify_store(url).problems == []
    reader = open_reader(url)
    assert reader.catalog.select("method", "level", "task", "nonfinite", "n_tokens").rows() == [
        ("dense", "-", "urn", 0, 0),
        ("rtn", "w4a16-g128", "halusum", 1, 0),
        *([("rtn", "w4a16", "text:story", 0, 5)] if version >= 4 else []),
        ("wanda", "2:4", "urn", 0, 0),
    ]
    run = reader.run(reader.catalog["name"][0])
    np.testing.assert_array_equal(run.logits, (np.arange(21, dtype=np.float32).reshape(7, 3) - 3) / 8)
    items = reader.items(run.key.items_hash)
    assert json.loads(items.texts[0])["question"] == "Größe 0?" and items.demonstration.tolist() == [False, True] + [False] * 5
    assert run.env.origin == "made by hand" and run.key.method_settings == {"a": [1, 0.5]} and run.tokens is None
    if version >= 4:
        tokens = reader.run(reader.catalog.row(2, named=True)["name"]).tokens
        assert tokens is not None and tokens.offsets.tolist() == [0, 2, 5] and tokens.kl.tolist() == [0, 0.125, 0.25, 0.375, 0.5]


def test_golden_store_is_written_as_it_is(tmp_path):
    """The present version writes the golden store of its own schema back bit for bit, so the format did not drift."""
    golden = GOLDEN / f"store_v{SCHEMA_VERSION}.zip"
    url = str(tmp_path / "store")
    import_zip(golden, url)
    write_zip(open_reader(url).keys, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == golden.read_bytes()


def test_every_old_version_has_a_golden_store_and_a_step():
    """Each schema version has a golden store with its script, and each old one a step to the next."""
    assert sorted(STEPS) == list(range(1, SCHEMA_VERSION))
    for version in range(1, SCHEMA_VERSION + 1):
        assert (GOLDEN / f"store_v{version}.zip").exists() and (GOLDEN / f"make_store_v{version}.py").exists()


def _from_version_0(nodes):
    """Undo what `_make_old` did: version 0, made up for these tests, has no seal."""
    (key, stored), *arrays = nodes
    attributes = {**json.loads(stored)["attributes"], "schema": 1}
    return [(key, json_bytes(group_document(sealed(attributes)))), *arrays]


def _make_old(url: str) -> None:
    session = open_repository(url).writable()
    keys = SessionKeys(session, url)
    for kind in ("items", "runs"):
        for name in keys.children(kind):
            attributes = json.loads(keys.get_many([f"{kind}/{name}/zarr.json"])[0])["attributes"]
            del attributes["seal"]
            keys.set_many([(f"{kind}/{name}/zarr.json", json_bytes(group_document({**attributes, "schema": 0})))])
    keys.set_many(root_nodes(0)[:1])
    session.commit("as version 0 would have been")


def test_old_store_is_migrated_on_a_branch_and_tagged(store_url):
    """A store of an older schema says what to do, is migrated, and stays readable as it was under its tag."""
    items = tiny_items()
    runs = [tiny_run(items, seed=seed) for seed in range(2)]
    write_runs(store_url, items, runs)
    _make_old(store_url)
    with pytest.raises(StoreInvalidError, match="store migrate"):
        open_reader(store_url)
    done = migrate_store(store_url, {0: _from_version_0, **STEPS})
    assert done is not None and open_reader(store_url).snapshot == done.snapshot
    assert open_reader(store_url, done.after).catalog.equals(open_reader(store_url).catalog)
    assert [open_reader(store_url).run(run.key.name).digest for run in runs] == [run.digest for run in runs]
    before = open_repository(store_url).session(done.before)
    assert stored_schema(SessionKeys(before, store_url)) == 0
    assert open_repository(store_url).ice.list_branches() == {"main"}
    assert history(store_url)["tags"].to_list()[:2] == [done.after, done.before]
    assert migrate_store(store_url) is None


def test_version_1_is_read_as_it_is_and_migrated_before_it_is_written_to(store_url):
    """A store of version 1 opens and keeps its runs' names and digests; a writer says how to migrate it, and then adds to it."""
    import_zip(GOLDEN / "store_v1.zip", store_url)
    session = open_repository(store_url).writable()
    SessionKeys(session, store_url).set_many(root_nodes(1)[:1])
    session.commit("as version 1 was")
    names = open_reader(store_url).catalog["name"].to_list()
    digests = [open_reader(store_url).run(name).digest for name in names]
    items = tiny_items()
    with pytest.raises(StoreInvalidError, match=f"has schema 1; bring it to {SCHEMA_VERSION} with: store migrate"):
        write_runs(store_url, items, [tiny_run(items)])
    migrate_store(store_url)
    write_runs(store_url, items, [tiny_run(items)])
    reader = open_reader(store_url)
    assert [reader.run(name).digest for name in names] == digests and len(reader.catalog) == len(names) + 1
    assert verify_store(store_url).problems == []


def test_an_empty_later_field_leaves_a_key_as_it_was():
    """The digest of a key without `tokens_hash` is that of version 1, hashed without the field; with it, it is another run."""
    key = RunKey(model="m", method="dense", task="t", items_hash="i", prompt="base")
    fields = key.model_dump(mode="json")
    del fields["tokens_hash"]
    assert key.digest == json_digest(fields) != key.model_copy(update={"tokens_hash": "a" * 64}).digest


def test_failing_migration_changes_nothing(store_url):
    """A step that fails, or is missing, leaves main as it was."""
    items = tiny_items()
    write_runs(store_url, items, [tiny_run(items)])
    _make_old(store_url)
    before = open_repository(store_url).session().snapshot_id
    with pytest.raises(StoreInvalidError, match="no migration leads from schema 0"):
        migrate_store(store_url, {})
    assert open_repository(store_url).session().snapshot_id == before
    assert open_repository(store_url).ice.list_branches() == {"main"}


def test_newer_store_is_refused_politely(store_url):
    """A store that needs a newer reader is refused with both versions and what to do, by readers and writers."""
    session = open_repository(store_url).writable()
    newer = {"format": "hedgemark", "schema": SCHEMA_VERSION + 1, "min_reader": SCHEMA_VERSION + 1}
    SessionKeys(session, store_url).set_many([("zarr.json", json_bytes(group_document(newer)))])
    session.commit("newer")
    for function in (open_reader, init_store, migrate_store):
        with pytest.raises(StoreInvalidError, match=rf"needs schema {SCHEMA_VERSION + 1}; .* reads up to {SCHEMA_VERSION}: upgrade"):
            function(store_url)


def test_steps_are_chained():
    """Nodes pass through every step from the version that they state, in order."""
    steps = {version: lambda nodes, version=version: [*nodes, (str(version), b"")] for version in (1, 2, 3)}
    for first in (1, 2, 4):
        stated = [("runs/a/zarr.json", json_bytes(group_document({"schema": first})))]
        assert [key for key, _ in migrate_nodes(stated, steps, 4)[1:]] == ["1", "2", "3"][first - 1 :]


@pytest.mark.parametrize("copied", range(1, SCHEMA_VERSION))
def test_what_was_copied_from_an_older_store_is_migrated_from_its_own_version(store_url, copied):
    """A store of version 3, with runs pulled from one as old or older: all of it verifies after its migration, and as it was before."""
    import_zip(GOLDEN / f"store_v{copied}.zip", store_url)
    session = open_repository(store_url).writable()
    SessionKeys(session, store_url).set_many(root_nodes(3)[:1])
    session.commit("as version 3 was")
    digests = {name: open_reader(store_url).run(name).digest for name in open_reader(store_url).catalog["name"]}
    done = migrate_store(store_url)
    assert done is not None and verify_store(store_url).problems == []
    for at in (None, done.before, done.after):
        assert {name: open_reader(store_url, at).run(name).digest for name in digests} == digests
    assert stored_schema(open_reader(store_url, done.before).keys) == 3


def test_plain_copy_of_a_store_is_a_store(store_url, tmp_path):
    """A store copied as a folder is the same store: no path is recorded in it."""
    items = tiny_items()
    snapshot = write_runs(store_url, items, [tiny_run(items)])
    shutil.copytree(store_url, tmp_path / "copy")
    assert open_reader(str(tmp_path / "copy")).snapshot == snapshot
