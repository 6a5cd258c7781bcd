"""What lies around a store is not believed: the catalog in the cache, a snapshot's file, a signature that covers too little."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from store_tiny import tiny_items, tiny_run, write_runs

import analyzer.cli.main
from analyzer.runs.loading import Runs
from schemas.errors import StoreInvalidError
from schemas.json_text import json_bytes
from schemas.layout import ITEMS, RUNS, group_document, root_attributes
from store import Reader, open_reader, open_writer
from store.cli.main import main
from store.format.documents import group_attributes
from store.format.root import MANIFEST, SIGNATURE, TAG, contents_digest, read_root, root_document
from store.format.runs import encode_run
from store.reading.catalog import keep_cached, load_cached
from store.repository.repository import open_repository
from store.upkeep.history import history
from store.upkeep.signature import FORMS, check_signature, digests_manifest, manifest, sign_store
from store.upkeep.tags import tag_snapshot
from store.upkeep.verify import verify_store


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A private and a public Ed25519 key."""
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def two_runs(url: str) -> None:
    items = tiny_items(n_items=60)
    write_runs(url, items, [tiny_run(items), tiny_run(items, method="wanda", level="0.5", seed=1)])


def sets(url: str) -> tuple[int, str]:
    result = CliRunner().invoke(analyzer.cli.main.main, ["sets", "--store", url, "--format", "json"])
    return result.exit_code, result.stdout


def test_a_damaged_cache_is_read_anew(store_url: str, tmp_path: Path) -> None:
    """Every one of 300 flipped bits of the cached catalog leaves the printed table as it was."""
    two_runs(store_url)
    truth = sets(store_url)
    (cached,) = (tmp_path / "cache").rglob("*.catalog")
    whole, rng = cached.read_bytes(), np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 300):
        cached.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << int(rng.integers(8)))]) + whole[place + 1 :])
        assert load_cached(cached) is None
    assert sets(store_url) == truth
    for broken in (b"", whole[:-1], whole + b"x", whole[32:]):
        cached.write_bytes(broken)
        assert load_cached(cached) is None


def test_the_cached_catalog_of_an_older_snapshot_is_read_anew(store_url: str, tmp_path: Path) -> None:
    """A whole cache file copied over that of a newer snapshot, or written anew with fewer runs, hides no run from ls or analyze."""
    two_runs(store_url)
    sets(store_url)
    (old,) = (tmp_path / "cache").rglob("*.catalog")
    items = tiny_items(n_items=60)
    write_runs(store_url, items, [tiny_run(items, seed=9)])
    catalog, truth = open_reader(store_url).catalog, sets(store_url)
    (new,) = set((tmp_path / "cache").rglob("*.catalog")) - {old}
    shutil.copy(old, new)
    assert load_cached(new) is None and load_cached(old) is not None
    assert sets(store_url) == truth
    for rows in (catalog[:2], catalog[[0, 1, 1]], catalog[::-1], catalog[:0]):
        keep_cached(rows, new)
        assert open_reader(store_url).catalog.equals(catalog)
        keep_cached(rows, new)
        assert sets(store_url) == truth


def forge(reader: Reader, name: str, **fields: str) -> list[dict[str, object]]:
    """Give a reader a catalog that says otherwise of one run, as a forged cache with a right checksum would."""
    changed = [pl.when(pl.col("name") == name).then(pl.lit(value)).otherwise(pl.col(field)).alias(field) for field, value in fields.items()]
    vars(reader)["catalog"] = reader.catalog.with_columns(changed)
    return reader.catalog.to_dicts()


@pytest.mark.parametrize(
    ("field", "other"),
    [("level", "2.5"), ("task", "mmlu"), ("model", "ref-m"), ("prompt", "task"), ("method", "rtn"), ("origin", "elsewhere")],
)
def test_a_row_that_differs_from_its_run_is_refused(field: str, other: str, store_url: str) -> None:
    """What is shown of a run is what the verified run says; a catalog that says otherwise ends in an error, not in a table."""
    two_runs(store_url)
    honest = open_reader(store_url)
    (row,) = honest.catalog.filter(pl.col("method") == "wanda").to_dicts()
    assert Runs(honest, [row]).view(row).row["level"] == "0.5"
    reader = open_reader(store_url)
    runs = Runs(reader, forge(reader, row["name"], **{field: other}))
    for read in (lambda: runs.view(row), lambda: list(runs.views())):
        with pytest.raises(StoreInvalidError, match="contradicts what is stored with run"):
            read()


def test_swapped_item_sets_are_refused(store_url: str) -> None:
    """The answers that logits are held against are those of the item set that the run itself names."""
    first, second = tiny_items(n_items=60), tiny_items("facts", n_items=60)
    write_runs(store_url, first, [tiny_run(first)])
    write_runs(store_url, second, [tiny_run(second)])
    reader = open_reader(store_url)
    one, other = reader.catalog.to_dicts()
    runs = Runs(reader, forge(reader, one["name"], items_hash=other["items_hash"]))
    with pytest.raises(StoreInvalidError, match="contradicts what is stored with run"):
        list(runs.views())


def test_a_snapshot_copied_over_another_is_refused(store_url: str) -> None:
    """A file that holds another snapshot than its name says is no snapshot: reading the tag, and verify, end with exit code 4."""
    two_runs(store_url)
    tag_snapshot(store_url, "v1")
    items = tiny_items(n_items=60)
    write_runs(store_url, items, [tiny_run(items, seed=9)])
    old, new = open_repository(store_url).tags()["v1"], open_reader(store_url).snapshot
    folder = Path(store_url) / "snapshots"
    shutil.copy(folder / new, folder / old)
    for command in (["ls", "--at", "v1"], ["verify"]):
        result = CliRunner().invoke(main, [*command, "--store", store_url])
        assert result.exit_code == 4, result.output
        assert f"holds snapshot {new}" in result.output


@pytest.mark.parametrize("source", ["v2", "main"])
def test_a_tag_file_exchanged_for_another_is_refused(source: str, store_url: str) -> None:
    """A tag's reference that names another tag's snapshot, or one that was never tagged: ls, analyze and verify end with exit code 4."""
    two_runs(store_url)
    tag_snapshot(store_url, "v1")
    items = tiny_items(n_items=60)
    write_runs(store_url, items, [tiny_run(items, seed=9)])
    tag_snapshot(store_url, "v2")
    assert verify_store(store_url).problems == [] and verify_store(store_url).notes == []
    refs = Path(store_url) / "refs"
    shutil.copy(refs / ("branch.main" if source == "main" else "tag.v2") / "ref.json", refs / "tag.v1" / "ref.json")
    for command, arguments in ((main, ["ls", "--at", "v1"]), (analyzer.cli.main.main, ["sets", "--at", "v1"]), (main, ["verify"])):
        result = CliRunner().invoke(command, [*arguments, "--store", store_url])
        assert result.exit_code == 4, result.output
        assert "tag 'v1' leads to a snapshot that was" in result.output


def test_a_branch_file_exchanged_for_a_tags_is_refused(store_url: str) -> None:
    """The reference of main that names a tag's snapshot would hide newer runs: ls, analyze, verify and writers end with exit code 4."""
    two_runs(store_url)
    tag_snapshot(store_url, "v1")
    items = tiny_items(n_items=60)
    write_runs(store_url, items, [tiny_run(items, seed=9)])
    refs = Path(store_url) / "refs"
    shutil.copy(refs / "tag.v1" / "ref.json", refs / "branch.main" / "ref.json")
    for command, arguments in ((main, ["ls"]), (analyzer.cli.main.main, ["sets"]), (main, ["verify"]), (main, ["tag", "v2"])):
        result = CliRunner().invoke(command, [*arguments, "--store", store_url])
        assert result.exit_code == 4, result.output
        assert "branch 'main' leads to the snapshot of tag 'v1'" in result.output
    with pytest.raises(StoreInvalidError, match="leads to the snapshot of tag"):
        open_writer(store_url)


def test_a_tag_says_what_it_names(store_url: str) -> None:
    """A run exchanged within the snapshot of a tag, digests and seals whole, is found by verify; `log` shows the tag at what was tagged."""
    two_runs(store_url)
    before = open_reader(store_url).snapshot
    tag_snapshot(store_url, "v1")
    assert open_reader(store_url).snapshot == before
    assert [row["tags"] for row in history(store_url).to_dicts()] == ["v1", "", ""]
    assert history(store_url, "v1").to_dicts()[0]["snapshot"] == before == open_reader(store_url, "v1").snapshot
    assert open_repository(store_url).ice.list_branches() == {"main"}
    repository, items = open_repository(store_url), tiny_items(n_items=60)
    forged = tiny_run(items, logit_seed=5)
    repository.ice.create_branch("forge", repository.ice.lookup_tag("v1"))
    session = repository.ice.writable_session("forge")
    repository.keys_of(session).set_many(encode_run(forged, items.n_options))
    snapshot = session.commit("forge")
    (Path(store_url) / "refs" / "tag.v1" / "ref.json").write_text(json.dumps({"snapshot": snapshot}))
    assert open_reader(store_url, "v1").run(forged.key.name).digest == forged.digest
    assert [problem for problem in verify_store(store_url, "v1").problems if "does not hold what was tagged" in problem]


def test_a_history_that_is_a_circle_is_refused(store_url: str) -> None:
    """A snapshot's file copied over that of an earlier one, which is its own ancestor then, ends `log` with exit code 4, not never."""
    two_runs(store_url)
    items = tiny_items(n_items=60)
    for seed in (7, 8):
        write_runs(store_url, items, [tiny_run(items, seed=seed)])
    rows = history(store_url)["snapshot"].to_list()
    folder = Path(store_url) / "snapshots"
    shutil.copy(folder / rows[1], folder / rows[2])
    result = CliRunner().invoke(main, ["log", "--store", store_url])
    assert (result.exit_code, "is a circle" in result.output) == (4, True), result.output


def change(url: str, key: str, edit: dict[str, object]) -> None:
    """Write other attributes at a key in a new commit, as somebody with write access could."""
    repository = open_repository(url)
    session = repository.writable()
    session_keys = repository.keys_of(session)
    attributes = group_attributes(session_keys.get_many([f"{key}/zarr.json"])[0], key)
    attributes = {name: {**value, **edit} if name == "env" else value for name, value in attributes.items()}
    session_keys.set_many([(f"{key}/zarr.json", json_bytes(group_document(attributes)))])
    with repository.lock():
        session.commit("change")


def test_the_signature_covers_where_a_run_is_from(store_url: str, keys: tuple[Path, Path]) -> None:
    """Another origin, command or number of parameters in a run's attributes breaks the signature."""
    private, public = keys
    two_runs(store_url)
    sign_store(store_url, private)
    assert check_signature(open_repository(store_url).keys()[1], public) == ([], [])
    name = open_reader(store_url).catalog["name"][0]
    change(store_url, f"{RUNS}/{name}", {"origin": "elsewhere", "parameters": 7})
    problems, _ = check_signature(open_repository(store_url).keys()[1], public)
    assert problems and "changed since" in problems[0]


def test_the_signature_covers_every_key(store_url: str, keys: tuple[Path, Path]) -> None:
    """A byte of any chunk or document under items/ or runs/, texts included, breaks the signature."""
    private, public = keys
    two_runs(store_url)
    sign_store(store_url, private)
    repository = open_repository(store_url)
    names = [f"{kind}/{name}" for kind in (ITEMS, RUNS) for name in repository.keys()[1].children(kind)]
    every = [(key, value) for name in names for key, value in repository.keys()[1].nodes_under(name)]
    assert {key.split("/")[2] for key, _ in every} >= {"texts", "logits", "zarr.json"}
    for key, value in every:
        session = repository.writable()
        session_keys = repository.keys_of(session)
        document = json.loads(value) if key.endswith("zarr.json") else None
        other = value[:-1] + bytes([value[-1] ^ 1]) if document is None else json.dumps({**document, "attributes": {"x": 1}}).encode()
        session_keys.set_many([(key, other)])
        assert check_signature(session_keys, public).problems, key


def verify_signed(url: str, public: Path, *at: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["verify", "--store", url, "--key", str(public), *at])
    return result.exit_code, result.output


def point(url: str, ref: str, snapshot: str) -> None:
    """Exchange what a branch or tag names, as somebody with write access could."""
    (Path(url) / "refs" / ref / "ref.json").write_text(json.dumps({"snapshot": snapshot}))


def forge_snapshot(url: str, start: str, message: str, root: dict[str, object], nodes: list[tuple[str, bytes]] | None = None) -> str:
    """Commit another root, and other nodes, upon a snapshot and return the id."""
    repository = open_repository(url)
    repository.ice.create_branch("forge", start)
    session = repository.ice.writable_session("forge")
    keys = repository.keys_of(session)
    keys.set_many(nodes or [])
    if MANIFEST in root:
        root = {**root, MANIFEST: contents_digest(keys)}
    keys.set_many([("zarr.json", root_document(root))])
    snapshot = str(session.commit(message, metadata={"tag": root[TAG]} if TAG in root else None))
    repository.ice.delete_branch("forge")
    return snapshot


def test_the_signature_covers_what_a_tag_names(store_url: str, keys: tuple[Path, Path]) -> None:
    """A tag exchanged with seals, digests and its own record made to fit, or taken away, breaks the signature and nothing else does."""
    private, public = keys
    two_runs(store_url)
    assert CliRunner().invoke(main, ["tag", "v1", "--sign", str(private), "--store", store_url]).exit_code == 0
    for at in ((), ("--at", "v1")):
        code, said = verify_signed(store_url, public, *at)
        assert code == 0 and "note:" not in said, said
    repository, items = open_repository(store_url), tiny_items(n_items=60)
    tagged = repository.ice.lookup_tag("v1")
    forged = list(encode_run(tiny_run(items, logit_seed=5), items.n_options))
    point(store_url, "tag.v1", forge_snapshot(store_url, tagged, "tag v1", read_root(repository.keys("v1")[1]), forged))
    assert verify_store(store_url).problems == []  # without the key, nothing tells
    code, said = verify_signed(store_url, public)
    assert code == 4 and "tag 'v1' does not name what it named when the store was signed" in said
    assert verify_signed(store_url, public, "--at", "v1")[0] == 4
    point(store_url, "tag.v1", tagged)
    assert verify_signed(store_url, public)[0] == 0
    (Path(store_url) / "refs" / "tag.v1" / "ref.json").unlink()
    assert verify_signed(store_url, public)[0] == 4


def test_a_tag_after_the_signature_is_noted(store_url: str, keys: tuple[Path, Path]) -> None:
    """The signature still holds, and verify says that it does not cover the tag; signing again does."""
    private, public = keys
    two_runs(store_url)
    sign_store(store_url, private)
    tag_snapshot(store_url, "later")
    for at in ((), ("--at", "later")):
        code, said = verify_signed(store_url, public, *at)
        assert code == 0 and "note: tag later: the signature does not cover it" in said, said
    sign_store(store_url, private)
    assert "note:" not in verify_signed(store_url, public)[1]


def test_the_signature_covers_the_history(store_url: str, keys: tuple[Path, Path]) -> None:
    """Another message in the history of a signed snapshot, its contents and its signature kept, breaks the signature."""
    private, public = keys
    two_runs(store_url)
    before = open_reader(store_url).snapshot
    sign_store(store_url, private)
    repository = open_repository(store_url)
    signed, root = repository.ice.lookup_branch("main"), read_root(repository.keys()[1])
    unsigned = {name: value for name, value in root.items() if name not in (SIGNATURE, "signed")}
    other = forge_snapshot(store_url, before, "reviewed by everybody", unsigned | {"x": 1})
    point(store_url, "branch.main", forge_snapshot(store_url, other, "sign the manifest", root))
    code, said = verify_signed(store_url, public)
    assert code == 4 and "its history" in said, said
    point(store_url, "branch.main", signed)
    assert verify_signed(store_url, public)[0] == 0


@pytest.mark.parametrize("form", [form for form in FORMS if FORMS[form]])
def test_a_signature_of_an_earlier_form_is_partial(form: str, store_url: str, keys: tuple[Path, Path]) -> None:
    """A signature over less still holds, and `verify` says what it does not cover."""
    from cryptography.hazmat.primitives import serialization

    private, public = keys
    two_runs(store_url)
    repository = open_repository(store_url)
    session = repository.writable()
    session_keys = repository.keys_of(session)
    signed = manifest(session_keys) if form else digests_manifest(session_keys)
    old = form + serialization.load_pem_private_key(private.read_bytes(), None).sign(signed).hex()
    session_keys.set_many([("zarr.json", root_document({**root_attributes(), SIGNATURE: old}))])
    with repository.lock():
        session.commit("sign as before")
    result = CliRunner().invoke(main, ["verify", "--store", store_url, "--key", str(public)])
    assert (result.exit_code, "partial" in result.output) == (0, True), result.output
