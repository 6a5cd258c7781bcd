"""Google Cloud Storage and Azure: the same contract as on S3, against a stand-in on loopback; what is said without credentials."""

import json

import pytest
from store_clouds import cloud_server
from store_tiny import tiny_items, tiny_run, write_runs

from schemas.errors import StoreNotFoundError, StoreUnreachableError
from store import init_store, open_reader, open_writer
from store.exchange.push_pull import copy_runs
from store.upkeep.garbage import collect_garbage
from store.upkeep.tags import tag_snapshot
from store.upkeep.verify import verify_store

ADDRESSES = {"gcs": "gs://bucket/team/store", "azure": "az://container/team/store?account=devstoreaccount1"}


@pytest.fixture
def connect(tmp_path, monkeypatch):
    """Return a function that points the providers' usual credentials at a stand-in."""

    def point(url: str) -> None:
        account = {"gcs_base_url": url, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
        (tmp_path / "account.json").write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
        monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", url)

    return point


@pytest.fixture(params=ADDRESSES.values(), ids=ADDRESSES.keys())
def cloud(request, connect):
    """Return a store's address on each cloud."""
    with cloud_server() as url:
        connect(url)
        yield request.param


def test_store_on_a_cloud_roundtrip(cloud, tmp_path):
    """A store is made, written, tagged, read, verified, collected and copied, bit for bit."""
    with pytest.raises(StoreNotFoundError, match="store init"):
        open_reader(cloud)
    init_store(cloud)
    init_store(cloud)
    items = tiny_items(n_items=300)
    run, local = tiny_run(items), str(tmp_path / "local")
    write_runs(cloud, items, [run])
    tagged = tag_snapshot(cloud, "v1")
    assert open_reader(cloud, "v1").snapshot == tagged and open_reader(cloud, "v1").run(run.key.name).digest == run.digest
    assert verify_store(cloud).problems == [] and collect_garbage(cloud).chunks == 0
    assert copy_runs(cloud, local).copied == [run.key.name] and open_reader(local).items(items.digest).texts == items.texts


def test_writers_at_once_on_a_cloud(cloud):
    """Two open writers are rebased upon each other: both runs land."""
    init_store(cloud)
    items = tiny_items()
    with open_writer(cloud) as one, open_writer(cloud) as two:
        one.write(items, tiny_run(items, seed=1))
        two.write(items, tiny_run(items, seed=2))
    assert len(open_reader(cloud).catalog) == 2


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES.keys())
def test_cloud_that_lets_nobody_in_is_unreachable(address, connect):
    """A provider that answers 403 is out of reach, which is not damage: exit code 5."""
    with cloud_server(closed=True) as url:
        connect(url)
        with pytest.raises(StoreUnreachableError) as caught:
            init_store(address)
    assert caught.value.exit_code == 5
