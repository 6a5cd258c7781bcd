"""Runs travel between stores and files: nothing changes on the way, and conflicts are never merged."""

import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr
from click.testing import CliRunner
from store_tiny import tiny_items, tiny_run, write_runs

from schemas.errors import StoreInvalidError
from store import init_store, open_reader
from store.cli.main import main
from store.exchange.push_pull import copy_runs
from store.exchange.zip_file import ZipKeys, import_zip, write_zip
from store.repository.repository import open_repository
from store.upkeep.signature import manifest
from store.upkeep.tags import tag_snapshot
from store.upkeep.verify import verify_store


@pytest.fixture(params=["local", "s3"])
def other(request, tmp_path):
    """Return the address of a second, empty store on each backend."""
    if request.param == "local":
        return str(tmp_path / "other")
    request.getfixturevalue("s3_credentials")
    return request.getfixturevalue("seaweedfs").new_address()


def _manifest(address: str) -> bytes:
    return manifest(open_repository(address).keys()[1])


def _nodes(keys: object, group: str) -> dict[str, bytes]:
    return {key: value for key, value in keys.nodes_under(group)}  # type: ignore[attr-defined]


def test_overlapping_stores_become_equal_in_either_order(store_url, other, tmp_path):
    """Two stores with overlapping runs, pushed into each other in both orders, end with one manifest and raw bytes alike."""
    items = tiny_items(n_items=300)
    runs = [tiny_run(items, seed=seed) for seed in range(3)]
    init_store(other)
    write_runs(store_url, items, runs[:2])
    write_runs(other, items, runs[1:])
    third = str(tmp_path / "third")
    copy_runs(other, third)
    copy_runs(store_url, third)
    assert copy_runs(store_url, other).copied == [runs[0].key.name]
    assert copy_runs(other, store_url).copied == [runs[2].key.name]
    assert _manifest(store_url) == _manifest(other) == _manifest(third)
    there, here = (_nodes(open_repository(address).keys()[1], "runs") for address in (other, store_url))
    assert there == here
    assert verify_store(other).problems == [] and copy_runs(store_url, other).copied == []


def test_conflicts_are_listed_and_left(store_url, tmp_path):
    """A run that both stores hold with other content is named, exits 5, and both keep their own; the rest is copied."""
    items = tiny_items()
    other = str(tmp_path / "other")
    init_store(other)
    ours, theirs, more = tiny_run(items), tiny_run(items, logit_seed=1), tiny_run(items, seed=2)
    write_runs(store_url, items, [ours, more])
    write_runs(other, items, [theirs])
    result = CliRunner().invoke(main, ["push", other, "--store", store_url])
    assert result.exit_code == 5 and f"conflict: {ours.key.name}" in result.stdout
    assert f"store rm --store {other} {ours.key.name} --message WHY" in " ".join(result.stderr.split())
    assert open_reader(other).run(ours.key.name).digest == theirs.digest
    assert open_reader(store_url).run(ours.key.name).digest == ours.digest
    assert open_reader(other).run(more.key.name).digest == more.digest


def test_zip_roundtrip_is_bit_exact_and_xarray_opens_it(store_url, tmp_path):
    """An exported snapshot imports bit for bit, is the same file each time, and plain xarray reads it."""
    items = tiny_items(n_items=300)
    run = tiny_run(items)
    write_runs(store_url, items, [run])
    tag_snapshot(store_url, "v1")
    write_runs(store_url, items, [tiny_run(items, seed=5)])
    first, second, other = tmp_path / "a.zip", tmp_path / "b.zip", str(tmp_path / "other")
    assert CliRunner().invoke(main, ["export", str(first), "--store", store_url, "--at", "v1"]).exit_code == 0
    assert CliRunner().invoke(main, ["import", "zip", str(first), "--store", other]).exit_code == 0
    write_zip(open_reader(other).keys, second)
    assert first.read_bytes() == second.read_bytes()
    assert open_reader(other).run(run.key.name).env == run.env and verify_store(other).problems == []
    with warnings.catch_warnings(), zarr.storage.ZipStore(first, mode="r") as opened:
        warnings.simplefilter("error")
        logits = xarray.open_zarr(opened, group=f"runs/{run.key.name}", consolidated=False)["logits"].values
        answered = xarray.open_zarr(opened, group=f"items/{run.key.items_hash}", consolidated=False)["answer"].values
    np.testing.assert_array_equal(logits, run.logits)
    np.testing.assert_array_equal(answered, items.answer)


def test_a_conflict_is_solved_as_the_message_says(store_url, tmp_path):
    """Removed there and pushed again, the other content arrives."""
    items, other = tiny_items(), str(tmp_path / "other")
    init_store(other)
    write_runs(store_url, items, [ours := tiny_run(items)])
    write_runs(other, items, [tiny_run(items, logit_seed=1)])
    assert CliRunner().invoke(main, ["push", other, "--store", store_url]).exit_code == 5
    assert CliRunner().invoke(main, ["rm", ours.key.name, "--store", other, "--message", "ours is right"]).exit_code == 0
    assert CliRunner().invoke(main, ["push", other, "--store", store_url]).exit_code == 0
    assert open_reader(other).run(ours.key.name).digest == ours.digest


def test_pulling_from_nowhere_advises_to_check_the_address(store_url, tmp_path):
    """It is no use to create an empty store there."""
    result = CliRunner().invoke(main, ["pull", str(tmp_path / "nowhere"), "--store", store_url])
    assert result.exit_code == 5 and "to pull from; check the address" in result.stderr and "store init" not in result.stderr


@pytest.mark.parametrize("damage", ["flip", "deflate", "twice", "text", "truncate", "empty"])
def test_damaged_zip_files_are_refused(store_url, tmp_path, damage):
    """A zip file that is damaged, compressed, ambiguous or something else is one error, and writes nothing."""
    items = tiny_items(n_items=300)
    write_runs(store_url, items, [tiny_run(items)])
    path, other = tmp_path / "a.zip", str(tmp_path / "other")
    write_zip(open_reader(store_url).keys, path)
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[content.rindex(b"c/0/0", 0, len(content) // 2) + 200] ^= 1
    elif damage == "truncate":
        content = content[: len(content) // 2]
    elif damage in ("text", "empty"):
        content = bytearray(b"thesis" if damage == "text" else b"")
    path.write_bytes(content)
    if damage in ("deflate", "twice"):
        _rewrite(path, damage)
    with pytest.raises(StoreInvalidError):
        import_zip(path, other)
    assert not Path(other).exists() or open_reader(other).catalog.is_empty()


def _rewrite(path: Path, damage: str) -> None:
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    how = zipfile.ZIP_DEFLATED if damage == "deflate" else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", how) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile warns of the duplicate that this test makes
        for name, value in [*members, *(members[-1:] if damage == "twice" else [])]:
            archive.writestr(name, value)


@pytest.mark.parametrize("existing", [True, False])
def test_a_zip_with_one_damaged_run_of_ten_leaves_nothing(store_url, tmp_path, existing):
    """A flipped byte in the last of ten runs stops the import before the first is written; a store that was not there is not made."""
    items = tiny_items(n_items=300)
    runs = [tiny_run(items, seed=seed) for seed in range(10)]
    write_runs(store_url, items, runs)
    path, other = tmp_path / "a.zip", str(tmp_path / "other")
    write_zip(open_reader(store_url).keys, path)
    if existing:
        init_store(other)
        write_runs(other, items, runs[:1])
    before = open_reader(other).snapshot if existing else None
    content = bytearray(path.read_bytes())
    last = sorted(run.key.name for run in runs)[-1]
    content[content.index(f"runs/{last}/logits/c/0/0".encode()) + 200] ^= 1
    path.write_bytes(content)
    result = CliRunner().invoke(main, ["import", "zip", str(path), "--store", other])
    assert result.exit_code == 4 and last in result.output
    assert open_reader(other).snapshot == before if existing else not Path(other).exists()


def test_zip_of_nothing_we_know_is_refused(tmp_path):
    """A zip file without a store's root is refused."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("zarr.json", '{"zarr_format":3,"node_type":"group","attributes":{}}')
    with pytest.raises(StoreInvalidError, match="not a Hedgemark store"):
        ZipKeys(tmp_path / "a.zip")


def test_signature_covers_the_runs(store_url, tmp_path):
    """A signed tag verifies with the public key; another key, no signature, or a run added since does not."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    paths = []
    for name in ("ours", "theirs"):
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (tmp_path / f"{name}.pem").write_bytes(pem)
        public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        paths.append(tmp_path / f"{name}.pub")
        paths[-1].write_bytes(public)
    items = tiny_items()
    write_runs(store_url, items, [tiny_run(items)])
    assert "not signed" in CliRunner().invoke(main, ["verify", "--store", store_url, "--key", str(paths[0])]).stdout
    assert CliRunner().invoke(main, ["tag", "v1", "--store", store_url, "--sign", str(tmp_path / "ours.pem")]).exit_code == 0
    assert CliRunner().invoke(main, ["verify", "--store", store_url, "--at", "v1", "--key", str(paths[0])]).exit_code == 0
    assert CliRunner().invoke(main, ["verify", "--store", store_url, "--at", "v1", "--key", str(paths[1])]).exit_code == 4
    write_runs(store_url, items, [tiny_run(items, seed=1)])
    result = CliRunner().invoke(main, ["verify", "--store", store_url, "--key", str(paths[0])])
    assert result.exit_code == 4 and "changed since" in result.stdout
    assert CliRunner().invoke(main, ["verify", "--store", store_url, "--at", "v1", "--key", str(paths[0])]).exit_code == 0
    swapped = ["tag", "v2", "--sign", str(paths[0])], ["verify", "--key", str(tmp_path / "ours.pem")]
    assert [CliRunner().invoke(main, [*arguments, "--store", store_url]).exit_code for arguments in swapped] == [2, 2]
