"""The store on real S3 servers: a good one serves it, one that ignores conditional writes is refused."""

import pytest
from store_servers import need, rclone_server
from store_tiny import tiny_items, tiny_run, write_runs

from schemas.errors import StoreNotFoundError, StoreUnreachableError, UnsafeServerError
from store import init_store, open_reader
from store.verify import verify_store

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
