"""What is written to a store is what comes back, and plain xarray reads it too."""

import dataclasses
import json
import multiprocessing
import tempfile
import warnings
from pathlib import Path

import icechunk
import numpy as np
import polars as pl
import pytest
import xarray
from store_tiny import tiny_items, tiny_run, write_runs

from schemas.errors import (
    HedgemarkError,
    NonFiniteError,
    RunConflictError,
    RunNotFoundError,
    StoreInvalidError,
    StoreNotFoundError,
    UsageError,
)
from schemas.layout import RUN_ARRAYS, chunk_keys, chunk_shape
from schemas.run import Environment
from store import init_store, open_dataset, open_reader, open_writer
from store.backend.user_cache import _temporary_folder, _warn, ensure_temporary_folder, existing_cache_folder
from store.reading.catalog import cache_path, cached_newest, keep_cached
from store.repository.repository import open_repository


def test_run_and_items_roundtrip(store_url):
    """A run and its items come back bit for bit, texts and environment included."""
    items = tiny_items()
    run = tiny_run(items, level="0.5", method="wanda", method_settings={"rate": 0.5}, option_token_ids=(1, 2, 3, 4))
    snapshot = write_runs(store_url, items, [run])
    reader = open_reader(store_url)
    back, back_items = reader.run(run.key.name), reader.items(items.digest)
    assert reader.snapshot == snapshot
    assert back.key == run.key and back.env == run.env and back.digest == run.digest
    assert all(back.arrays()[name].tobytes() == array.tobytes() for name, array in run.arrays().items())
    assert back_items.texts == items.texts and back_items.revision == items.revision and back_items.subjects == items.subjects


def test_items_without_text_roundtrip(store_url):
    """Items whose text is not kept come back without it."""
    items = dataclasses.replace(tiny_items(), texts=())
    write_runs(store_url, items, [tiny_run(items)])
    assert open_reader(store_url).items(items.digest).texts == ()


def test_arrays_larger_than_a_chunk_roundtrip(store_url, monkeypatch):
    """Arrays of several chunks come back whole, the last chunk padded in the store alone."""
    monkeypatch.setattr("schemas.layout.MAX_CHUNK_BYTES", 100)
    items = tiny_items(n_items=33)
    run = tiny_run(items)
    write_runs(store_url, items, [run])
    assert len(chunk_keys(RUN_ARRAYS["logits"], run.logits.shape)) == 6
    assert open_reader(store_url).run(run.key.name).digest == run.digest
    assert open_reader(store_url).items(items.digest).texts == items.texts


@pytest.mark.parametrize("shape", [(1, 6), (10, 2), (10_000_000, 6)])
def test_chunks_are_whole_rows_within_the_bound(shape):
    """A chunk has whole rows and at most 16 MiB."""
    rows, width = chunk_shape(RUN_ARRAYS["logits"], shape)
    assert width == shape[1] and 1 <= rows <= shape[0] and rows * width * 4 <= 16 * 2**20


def test_xarray_reads_a_run_without_our_code(store_url):
    """Plain xarray opens a run and an item set of the store, without a warning."""
    items = tiny_items()
    run = tiny_run(items)
    write_runs(store_url, items, [run])
    session = icechunk.Repository.open(icechunk.local_filesystem_storage(store_url)).readonly_session("main")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = xarray.open_zarr(session.store, group=f"runs/{run.key.name}", consolidated=False)
        opened_items = xarray.open_zarr(session.store, group=f"items/{items.digest}", consolidated=False)
        np.testing.assert_array_equal(opened["logits"].values, run.logits)
    assert opened["logits"].dims == ("item", "option") and opened.attrs["key"]["model"] == "ref-s"
    np.testing.assert_array_equal(opened_items["answer"].values, items.answer)
    start, end = opened_items["text_offsets"].values[3:5]
    assert json.loads(opened_items["texts"].values[start:end].tobytes())["question"] == "urn 3: naïve?"


def test_a_swapped_chunk_shows_in_plain_xarray_and_not_in_ours(store_url):
    """Another run's chunk in a run's place passes through `xarray.open_zarr`; `store.open_dataset` refuses it, as layout.md says."""
    items = tiny_items()
    one, other = tiny_run(items), tiny_run(items, seed=1)
    write_runs(store_url, items, [one, other])
    data = open_dataset(store_url, one.key.name)
    np.testing.assert_array_equal(data["logits"].values, one.logits)
    assert data.attrs["model"] == "ref-s" and data.attrs["snapshot"] == open_reader(store_url).snapshot
    assert data["subject"].values[:2].tolist() == ["s0", "s1"] and data["demonstration"].values.sum() == 1
    repository = open_repository(store_url)
    session = repository.writable()
    chunk = "logits/c/0/0"
    keys = repository.keys_of(session)
    keys.set_many([(f"runs/{one.key.name}/{chunk}", keys.get_many([f"runs/{other.key.name}/{chunk}"])[0])])
    session.commit("swap")
    shown = xarray.open_zarr(session.store, group=f"runs/{one.key.name}", consolidated=False)["logits"].values
    np.testing.assert_array_equal(shown, other.logits)
    with pytest.raises(StoreInvalidError, match="digest differs"):
        open_dataset(store_url, one.key.name)


def test_catalog_has_one_row_per_run(store_url):
    """The catalog lists every run with what its key and environment say, cached or not."""
    items = tiny_items()
    runs = [tiny_run(items, model=model) for model in ("ref-l", "ref-s")]
    write_runs(store_url, items, runs)
    for _ in range(2):
        catalog = open_reader(store_url).catalog
        assert catalog["name"].to_list() == [run.key.name for run in runs]
        assert catalog.row(0, named=True)["duration_s"] == 1.5 and catalog["n_items"].to_list() == [12, 12]


def _cached_catalog(folder: Path) -> Path:
    (path,) = (folder / "cache").rglob("*.catalog")
    return path


def test_catalog_survives_a_broken_cache(store_url, tmp_path):
    """A cache file of garbage, cut short, empty or unreadable is read past."""
    items = tiny_items()
    write_runs(store_url, items, [tiny_run(items)])
    truth = open_reader(store_url).catalog
    path = _cached_catalog(tmp_path)
    whole = path.read_bytes()
    for content in (b"garbage", whole[:40], whole[:-1], b""):
        path.write_bytes(content)
        assert open_reader(store_url).catalog.equals(truth)
    path.unlink()
    path.mkdir()
    assert open_reader(store_url).catalog.equals(truth)


def test_no_flipped_bit_of_the_cache_changes_the_catalog(store_url, tmp_path):
    """Each of 200 bits flipped anywhere in the cached catalog leaves what is listed as it was."""
    items = tiny_items()
    write_runs(store_url, items, [tiny_run(items, seed=seed, method="wanda", level="0.5") for seed in range(3)])
    truth = open_reader(store_url).catalog
    path, rng = _cached_catalog(tmp_path), np.random.default_rng(7)
    whole = path.read_bytes()
    for place in rng.integers(0, 8 * len(whole), 200):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        assert cached_newest(store_url) is None and open_reader(store_url).catalog.equals(truth)


def test_a_run_that_the_catalog_describes_otherwise_is_refused(store_url, tmp_path):
    """A cached catalog that was written whole but says something else of a run is not believed: labels are the run's own."""
    items, others = tiny_items(), tiny_items("facts")
    run = tiny_run(items)
    write_runs(store_url, items, [run])
    write_runs(store_url, others, [tiny_run(others)])
    truth = open_reader(store_url).catalog
    path = cache_path(store_url, open_reader(store_url).snapshot)
    for column, value in (("level", "2.5"), ("items_hash", others.digest), ("parameters", 7), ("truncated_items", 1)):
        other = pl.lit(value).cast(truth.schema[column])
        keep_cached(truth.with_columns(pl.when(pl.col("name") == run.key.name).then(other).otherwise(column).alias(column)), path)
        reader = open_reader(store_url)
        assert reader.catalog[column].to_list() != truth[column].to_list()
        for read in (reader.run, lambda name, reader=reader: list(reader.runs([name]))):
            with pytest.raises(StoreInvalidError, match="cached catalog"):
                read(run.key.name)


def test_temporary_files_go_to_the_cache_where_no_folder_is_for_them(tmp_path, monkeypatch, caplog):
    """If no temporary folder can be written, the cache folder serves with one warning; if it cannot be written either, memory does."""

    def nowhere():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "_get_default_tempdir", nowhere)
    for cache, used in ((tmp_path / "cache", tmp_path / "cache"), (Path("/dev/null/cache"), Path("/dev/shm"))):
        monkeypatch.setattr(tempfile, "tempdir", None)
        monkeypatch.setenv("HEDGEMARK_CACHE", str(cache))
        for _ in range(2):
            ensure_temporary_folder()
        if used.is_dir():
            assert tempfile.gettempdir() == str(used)
            with tempfile.NamedTemporaryFile() as file:
                assert Path(file.name).parent == used
    assert [str(place) in record.message for place, record in zip((tmp_path, "/dev/shm"), caplog.records, strict=True)] == [True, True]


@pytest.mark.parametrize("place", ["file", "/dev/null", "~", None])
def test_a_cache_that_cannot_be_written_costs_one_warning(store_url, tmp_path, monkeypatch, caplog, place):
    """Where the cache folder is a file, below one, or where a user has no home, the store works and says so once."""
    (tmp_path / "file").write_text("")
    if place in ("~", None):
        monkeypatch.delenv("HEDGEMARK_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    if place == "~":
        monkeypatch.setattr("store.backend.user_cache.user_cache_dir", lambda *_, **__: "~/.cache/hedgemark")
    elif place:
        monkeypatch.setenv("HEDGEMARK_CACHE", str(tmp_path / place / "cache"))
    _warn.cache_clear()
    _temporary_folder.cache_clear()
    items = tiny_items()
    write_runs(store_url, items, [tiny_run(items)])
    for _ in range(2):
        assert len(open_reader(store_url).catalog) == 1
        with tempfile.TemporaryFile(dir=existing_cache_folder()) as file:
            file.write(b"room for intermediate results")
    assert [record.message.startswith("cannot cache in") for record in caplog.records] == [True]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "store"]


def test_equal_run_again_is_a_no_op(store_url):
    """Writing the same run twice leaves one run and no further commit."""
    items = tiny_items()
    first = write_runs(store_url, items, [tiny_run(items)])
    assert write_runs(store_url, items, [tiny_run(items)]) == first


def test_other_content_is_a_conflict_unless_replaced(store_url):
    """The same key with other logits is refused; --replace puts it in place and keeps the old one in history."""
    items = tiny_items()
    old, new = tiny_run(items), tiny_run(items, logit_seed=1)
    before = write_runs(store_url, items, [old])
    with pytest.raises(RunConflictError, match=old.key.name):
        write_runs(store_url, items, [new])
    with open_writer(store_url) as writer:
        writer.write(items, new, replace=True)
    assert open_reader(store_url).run(new.key.name).digest == new.digest
    assert open_reader(store_url, before).run(old.key.name).digest == old.digest


def test_replacing_takes_over_what_is_said_of_the_machine(store_url):
    """A run of the same logits that says less of its machine stays unless it is replaced; then what was said is gone from the newest."""
    items = tiny_items()
    told = tiny_run(items)
    silent = dataclasses.replace(told, env=Environment(libraries=told.env.libraries))
    assert told.env != silent.env and told.digest == silent.digest
    before = write_runs(store_url, items, [told])
    assert write_runs(store_url, items, [silent]) == before
    with open_writer(store_url) as writer:
        writer.write(items, silent, replace=True)
    assert open_reader(store_url).run(told.key.name).env == silent.env
    with open_writer(store_url) as writer:
        writer.write(items, silent, replace=True)
        assert writer.commit() == open_reader(store_url).snapshot


def test_nonfinite_logits_need_permission(store_url):
    """NaN logits are refused, and stored with their count when allowed."""
    items = tiny_items()
    run = tiny_run(items)
    broken = dataclasses.replace(run, logits=np.where(np.arange(12)[:, None] < 2, np.float32("inf"), run.logits))
    with pytest.raises(NonFiniteError), open_writer(store_url) as writer:
        writer.write(items, broken)
    assert open_reader(store_url).catalog.is_empty()
    with open_writer(store_url) as writer:
        writer.write(items, broken, allow_nonfinite=True)
    assert open_reader(store_url).catalog["nonfinite"].to_list() == [2]


def test_run_of_other_items_is_refused(store_url):
    """A run is written only with the items it answered."""
    with pytest.raises(HedgemarkError, match="answers items"), open_writer(store_url) as writer:
        writer.write(tiny_items("facts"), tiny_run(tiny_items()))


def test_wrong_dtype_leaves_nothing_behind(store_url):
    """A run whose arrays do not fit the layout is refused, and the batch around it lands."""
    items = tiny_items()
    good, bad = tiny_run(items), tiny_run(items, seed=1)
    with open_writer(store_url) as writer:
        writer.write(items, good)
        with pytest.raises(HedgemarkError, match="float64"):
            writer.write(items, dataclasses.replace(bad, logsumexp=bad.logsumexp.astype(np.float64)))
    assert open_reader(store_url).catalog["name"].to_list() == [good.key.name]


def test_writer_knows_what_is_there(store_url):
    """`contains` sees pending and committed runs and no others."""
    items = tiny_items()
    run = tiny_run(items)
    with open_writer(store_url) as writer:
        assert not writer.contains(run.key)
        writer.write(items, run)
        assert writer.contains(run.key)
    with open_writer(store_url) as writer:
        assert writer.contains(run.key) and not writer.contains(tiny_run(items, seed=7).key)


def test_missing_run_names_what_is_there(store_url):
    """Asking for an unknown run says which ones there are."""
    items = tiny_items()
    run = tiny_run(items)
    write_runs(store_url, items, [run])
    with pytest.raises(RunNotFoundError, match=run.key.name):
        open_reader(store_url).run("ref-s~dense~urn~base.00000000")


def test_places_that_are_not_stores(tmp_path):
    """A file, a foreign folder, nothing, and an unknown tag are told apart."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("x")
    for function in (init_store, open_reader, open_writer):
        with pytest.raises(StoreInvalidError, match="is a file"):
            function(str(tmp_path / "file"))
        with pytest.raises(StoreInvalidError, match=r"thesis\.tex"):
            function(str(tmp_path / "folder"))
    with pytest.raises(StoreNotFoundError, match="store init"):
        open_reader(str(tmp_path / "nothing"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_unknown_tag_lists_the_tags(store_url):
    """An unknown tag or snapshot is a usage error."""
    with pytest.raises(UsageError, match="tags: none"):
        open_reader(store_url, "v1")


def test_foreign_icechunk_repository_is_not_a_store(tmp_path):
    """An Icechunk repository of somebody else is refused."""
    icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "other")))
    with pytest.raises(StoreInvalidError, match="not a Hedgemark store"):
        open_reader(str(tmp_path / "other"))


def _init(address: str) -> None:
    init_store(address)


def test_two_processes_create_one_store(tmp_path: Path):
    """Processes that create the same store at once leave one good store and no debris."""
    address = str(tmp_path / "shared")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(_init, [address] * 8, chunksize=1)
    assert open_reader(address).catalog.is_empty()
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["shared"]


@pytest.mark.parametrize("batch_bytes", [1, 10_000, 2**26])
def test_many_runs_come_in_order_whatever_the_batches(store_url, monkeypatch, batch_bytes):
    """`runs` yields what was asked for in its order, a name asked for twice twice, and an unknown name is an error in its place."""
    items = tiny_items()
    runs = [tiny_run(items, seed=seed) for seed in range(20)]
    write_runs(store_url, items, runs)
    monkeypatch.setattr("store.reading.reader.BATCH_BYTES", batch_bytes)
    wanted = [*(run.key.name for run in runs), runs[0].key.name]
    assert [run.digest for run in open_reader(store_url).runs(wanted)] == [*(run.digest for run in runs), runs[0].digest]
    with pytest.raises(RunNotFoundError, match="no run 'nope'"):
        list(open_reader(store_url).runs([*wanted, "nope"]))
