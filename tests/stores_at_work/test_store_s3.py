"""The store on real S3 servers: a good one serves it, one that ignores conditional writes is refused."""

import resource
from urllib.parse import urlsplit
from uuid import uuid4

import icechunk
import pytest
from store_servers import need, rclone_server
from store_tiny import ZSTD_2_GB, tiny_items, tiny_run, write_runs

from schemas.errors import StoreInvalidError, StoreNotFoundError, StoreUnreachableError, UnsafeServerError
from schemas.json_text import json_bytes
from schemas.layout import RUN_ARRAYS, array_document
from store import init_store, open_reader
from store.backend.session_keys import SessionKeys
from store.repository.repository import open_repository
from store.safety.check_folder import HEADER_BYTES, MAGIC
from store.safety.screen import BOUND_BYTES
from store.upkeep.verify import verify_store

pytestmark = pytest.mark.usefixtures("s3_credentials")


def test_store_on_s3_roundtrip(seaweedfs):
    """A run written to S3 reads back bit for bit, and the store verifies."""
    address = seaweedfs.new_address()
    init_store(address)
    init_store(address)
    items = tiny_items(n_items=300)
    run = tiny_run(items)
    snapshot = write_runs(address, items, [run])
    reader = open_reader(address)
    assert reader.snapshot == snapshot and reader.run(run.key.name).digest == run.digest
    assert reader.items(items.digest).texts == items.texts
    assert verify_store(address).problems == []


def test_empty_prefix_is_no_store(seaweedfs):
    """A bucket or prefix without a store says how to create one."""
    with pytest.raises(StoreNotFoundError, match="store init"):
        open_reader(seaweedfs.new_address())


def test_credentials_stay_out_of_messages(seaweedfs, monkeypatch):
    """Wrong credentials are refused by the server, and the message repeats none of them."""
    address = seaweedfs.new_address()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-and-private")
    with pytest.raises(StoreUnreachableError) as caught:
        init_store(address)
    assert "wrong-and-private" not in str(caught.value)


def test_server_that_ignores_conditional_writes_is_refused(tmp_path):
    """rclone's S3 server, which ignores conditional writes, is refused with the reason, and nothing of ours is on it."""
    need("rclone")
    with rclone_server(tmp_path / "rclone") as address:
        with pytest.raises(UnsafeServerError, match="its server ignores If-"):
            init_store(address)
        with pytest.raises(UnsafeServerError, match="its server ignores If-"):
            init_store(address)


@pytest.fixture
def strangers(seaweedfs, monkeypatch, tmp_path):
    """Return the address of a store that another user wrote, and this user never; and its run."""
    address = seaweedfs.new_address()
    init_store(address)
    items = tiny_items(n_items=300)
    run = tiny_run(items)
    write_runs(address, items, [run])
    monkeypatch.setenv("HEDGEMARK_CACHE", str(tmp_path / "another-user"))
    return address, run


def test_strangers_store_is_screened_and_read(strangers, monkeypatch):
    """A good store that this user never wrote to is screened once a snapshot, and then read like any other, however large this process."""
    address, run = strangers
    ballast = b"x" * (BOUND_BYTES + 2**20)
    assert open_reader(address).run(run.key.name).digest == run.digest
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("screened again"))
    assert open_reader(address).run(run.key.name).digest == run.digest
    del ballast


FILE_TYPES = {"snapshots": 1, "manifests": 2}  # in the header of an Icechunk file


@pytest.mark.slow
@pytest.mark.parametrize("folder", FILE_TYPES)
def test_metadata_bombs_on_a_server_are_refused_unread(seaweedfs, strangers, folder, monkeypatch, tmp_path):
    """A remote metadata file of 64 kB that decompresses to 2 GB ends in one error with exit code 4, and this process stays small."""
    address, run = strangers
    _grow_manifest(address, run.key.name)
    monkeypatch.setenv("HEDGEMARK_CACHE", str(tmp_path / "a-third-user"))  # who did not write to it either
    header = MAGIC + bytes(HEADER_BYTES - len(MAGIC) - 3) + bytes([1, FILE_TYPES[folder], 1])
    seaweedfs.overwrite(f"{urlsplit(address).path}/{folder}", header + ZSTD_2_GB)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(StoreInvalidError, match="cannot be read within 536870912 bytes") as caught:
        open_reader(address).run(run.key.name)
    assert caught.value.exit_code == 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


def _grow_manifest(address: str, run: str) -> None:
    """Give the logits so many chunks that their manifest is larger than the bomb: Icechunk reads as many bytes as the snapshot says."""
    document = array_document(RUN_ARRAYS["logits"], (3000, 4))
    document["chunk_grid"]["configuration"]["chunk_shape"] = [1, 4]
    session = open_repository(address, screened=True).writable()
    SessionKeys(session, address).set_many([(f"runs/{run}/logits/zarr.json", json_bytes(document))])
    refs = [icechunk.VirtualChunkSpec([number, 0], f"s3://elsewhere/{uuid4()}", 0, 1) for number in range(3000)]
    session.store.set_virtual_refs(f"runs/{run}/logits", refs, validate_containers=False)
    session.commit("grow")
