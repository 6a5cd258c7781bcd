"""Runs travel between stores and files: nothing changes on the way, and conflicts are never merged."""

import json
import warnings
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray
import zarr
from click.testing import CliRunner
from store_tiny import tiny_items, tiny_run, write_runs

from schemas.errors import StoreInvalidError, UsageError
from store import init_store, open_reader
from store.cli.main import main
from store.exchange.import_runs import import_runs
from store.exchange.parquet_file import write_parquet
from store.exchange.push_pull import copy_runs
from store.exchange.zip_file import ZipKeys, import_zip, write_zip
from store.importers.described import Description
from store.importers.lm_eval import read_lm_eval
from store.importers.table import read_table
from store.repository.repository import open_repository
from store.upkeep.history import tag_snapshot
from store.upkeep.signature import manifest
from store.upkeep.verify import verify_store

NAMED = Description(model="org/model", task="arc")


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
    """A run that both stores hold with other content is named, exits 1, and both keep their own; the rest is copied."""
    items = tiny_items()
    other = str(tmp_path / "other")
    init_store(other)
    ours, theirs, more = tiny_run(items), tiny_run(items, logit_seed=1), tiny_run(items, seed=2)
    write_runs(store_url, items, [ours, more])
    write_runs(other, items, [theirs])
    result = CliRunner().invoke(main, ["push", other, "--store", store_url])
    assert result.exit_code == 1 and f"conflict: {ours.key.name}" in result.stdout
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
    np.testing.assert_array_equal(logits, run.logits)


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


def test_zip_of_nothing_we_know_is_refused(tmp_path):
    """A zip file without a store's root is refused."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("zarr.json", '{"zarr_format":3,"node_type":"group","attributes":{}}')
    with pytest.raises(StoreInvalidError, match="not a Hedgemark store"):
        ZipKeys(tmp_path / "a.zip")


def test_parquet_holds_every_logit_and_comes_back(store_url, tmp_path):
    """The Parquet table has a row per run and item, null beyond an item's options, and imports with the same logits."""
    items = tiny_items()
    runs = [tiny_run(items, method="wanda", level=level) for level in ("0.3", "0.5")]
    write_runs(store_url, items, runs)
    path, other = tmp_path / "logits.parquet", str(tmp_path / "other")
    assert write_parquet(open_reader(store_url).keys, path) == 2
    table = pl.read_parquet(path)
    assert len(table) == 24 and table["logit_D"].null_count() == 12 and table["answer"][:3].to_list() == ["A", "B", "C"]
    import_runs(other, read_table(path, Description()), "import")
    reader = open_reader(other)
    assert reader.catalog["level"].to_list() == ["0.3", "0.5"]
    back = reader.run(reader.catalog["name"][0])
    np.testing.assert_array_equal(back.logits, runs[0].logits)
    back_items = reader.items(back.key.items_hash)
    np.testing.assert_array_equal(back_items.demonstration, items.demonstration)
    np.testing.assert_array_equal(back_items.n_options, items.n_options)
    assert back.env.origin.startswith("table logits.parquet sha256:")


def test_csv_of_logits_is_imported(tmp_path):
    """A CSV of per-option logits becomes a run, with items of fewer options where cells are empty."""
    path = tmp_path / "mine.csv"
    path.write_text("id,answer,logit_A,logit_B,logit_C\nq1,A,1.5,0,-1\nq2,B,0.25,2,\n")
    url = str(tmp_path / "store")
    names = ["--model", "m", "--task", "t", "--level", ".50", "--method", "wanda"]
    result = CliRunner().invoke(main, ["import", "table", str(path), "--store", url, *names])
    assert result.exit_code == 0, result.output
    reader = open_reader(url)
    run = reader.run(reader.catalog["name"][0])
    assert run.logits.tolist()[0] == [1.5, 0.0, -1.0] and np.isnan(run.logits[1, 2]) and run.key.level == "0.5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,answer,logit_A\n1,A,0\n", "logit_B"),
        ("id,answer,logit_A,logit_C\n1,A,0,1\n", "logit_B"),
        ("id,answer,logit_A,logit_B\n1,C,0,1\n", "without a logit"),
        ("id,answer,logit_A,logit_B\n1,,0,1\n", "answer"),
        ("id,answer,logit_A,logit_B\n1,A,0,1\n1,A,0,1\n", "more than once"),
        ("id,answer,logit_A,logit_B\n1,A,x,1\n", "not a number"),
        ("id,answer,logit_A,logit_B\n1,A,,1\n", "gap"),
        ("id,answer,logit_A,logit_B\n1,A,nan,1\n", "NaN or infinite"),
        ("", "not a CSV"),
    ],
)
def test_bad_tables_write_nothing(tmp_path, text, message):
    """A table that lacks something is refused in one sentence, and no store is made."""
    path, url = tmp_path / "mine.csv", tmp_path / "store"
    path.write_text(text)
    result = CliRunner().invoke(main, ["import", "table", str(path), "--store", str(url), "--model", "m", "--task", "t"])
    assert result.exit_code in (1, 2) and message in result.output and "Traceback" not in result.output
    assert not url.exists()


SAMPLE = {
    "doc_id": 0,
    "doc": {"question": "2 + 2?"},
    "target": "1",
    "arguments": {f"gen_args_{i}": {"arg_0": "Q: 2 + 2?\nA:", "arg_1": f" {text}"} for i, text in enumerate(("three", "four"))},
    "resps": [[["-3.5", "False"]], [["-0.5", "True"]]],
    "filtered_resps": [["-3.5", "False"], ["-0.5", "True"]],
}


OLDER = {"arguments": [["Q", " three"], ["Q", " four"]], "filtered_resps": [[-3.5, False], [-0.5, True]]}


@pytest.mark.parametrize("changes", [{}, {"target": 1}, {"target": "four"}, {"target": "B"}, OLDER])
def test_lm_eval_samples_are_imported(tmp_path, changes):
    """Samples of old and new versions of the harness become items and log-likelihoods."""
    path = tmp_path / "samples_arc_easy_2026-01-02T03-04-05.678.jsonl"
    path.write_text("\n".join(json.dumps({**SAMPLE, **changes, "doc_id": i}) for i in range(3)))
    [(items, run)] = read_lm_eval([path], Description(model="org/model"))
    assert run.key.task == "arc_easy" and run.logits.tolist() == [[-3.5, -0.5]] * 3 and items.answer.tolist() == [1, 1, 1]
    assert run.env.origin.startswith("lm-eval samples_arc_easy")


OTHER_KINDS = [{"filtered_resps": ["text"]}, {"target": "seven"}, {"target": 5}, {"arguments": []}, {"filtered_resps": [["1", "x"]]}]


@pytest.mark.parametrize("changes", OTHER_KINDS)
def test_samples_of_other_kinds_are_refused(tmp_path, changes):
    """A generation task, an unknown target or a single choice is named with its line."""
    path = tmp_path / "samples_gsm8k.jsonl"
    path.write_text(json.dumps({**SAMPLE, **changes}))
    with pytest.raises(UsageError, match="line 1 is not a multiple-choice sample"):
        list(read_lm_eval([path], NAMED))


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
    assert result.exit_code == 4 and "runs were added since" in result.stdout
    assert CliRunner().invoke(main, ["verify", "--store", store_url, "--at", "v1", "--key", str(paths[0])]).exit_code == 0
    swapped = ["tag", "v2", "--sign", str(paths[0])], ["verify", "--key", str(tmp_path / "ours.pem")]
    assert [CliRunner().invoke(main, [*arguments, "--store", store_url]).exit_code for arguments in swapped] == [2, 2]
