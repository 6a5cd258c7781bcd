"""Stores made by somebody who means harm: nothing runs, nothing outside is read, memory stays bounded, one error class."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import icechunk
import pytest
from click.testing import CliRunner
from first_line import after_first_line
from store_tiny import ZSTD_2_GB, tiny_items, tiny_run, write_runs

import analyzer.cli.main
from schemas.errors import HedgemarkError, StoreInvalidError
from schemas.json_text import json_bytes
from schemas.layout import RUN_ARRAYS, array_document, group_document, sealed
from store import open_reader
from store.backend.session_keys import SessionKeys
from store.cli.main import main
from store.exchange.zip_file import import_zip, write_zip
from store.format.arrays import _checksum
from store.format.documents import parse_document
from store.repository.repository import open_repository
from store.safety.check_folder import HEADER_BYTES, MAGIC, decompressed_bound
from store.upkeep.verify import verify_store

N_ITEMS = 300
EMPTY_GROUP = json_bytes(group_document({}))


@pytest.fixture
def victim(store_url):
    """Return the address of a good store and the name of its run."""
    items = tiny_items(n_items=N_ITEMS)
    run = tiny_run(items)
    write_runs(store_url, items, [run])
    return store_url, run.key.name


def _tamper(address: str, *nodes: tuple[str, bytes]) -> None:
    session = open_repository(address).writable()
    SessionKeys(session, address).set_many(nodes)
    session.commit("tamper")


def _logits_document(**changes: object) -> bytes:
    return json.dumps({**array_document(RUN_ARRAYS["logits"], (N_ITEMS, 4)), **changes}).encode()


def _check_refused(address: str) -> None:
    """Every command that reads everything ends with exit code 4, and prints no traceback."""
    result = CliRunner().invoke(main, ["verify", "--store", address])
    assert result.exit_code == 4, result.output
    assert "Traceback" not in result.output and all(len(line) < 500 for line in result.output.splitlines())


CODECS = {
    "pickle codec": {"codecs": [{"name": "numcodecs.pickle", "configuration": {}}]},
    "vlen codec": {"data_type": "string", "codecs": [{"name": "vlen-utf8"}, {"name": "zstd", "configuration": {"level": 3}}]},
    "object dtype": {"data_type": {"name": "object", "configuration": {}}},
    "huge shape": {"shape": [10**12, 4]},
    "negative shape": {"shape": [-1, 4]},
    "huge chunk": {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10**12, 4]}}},
    "transformer": {"storage_transformers": [{"name": "x", "configuration": {}}]},
    "sharding": {"codecs": [{"name": "sharding_indexed", "configuration": {"chunk_shape": [1, 4], "codecs": []}}]},
}


@pytest.mark.parametrize("changes", CODECS.values(), ids=CODECS.keys())
def test_other_codecs_dtypes_and_shapes_are_refused(victim, changes, tmp_path):
    """An array whose metadata are not exactly the layout's is refused before a chunk is decoded, in a store and in a zip file.

    Icechunk itself refuses to write some of them (a negative shape); in a zip file all of them reach our reader.
    """
    address, name = victim
    target = f"runs/{name}/logits/zarr.json"
    export = tmp_path / "export.zip"
    write_zip(open_reader(address).keys, export)
    with zipfile.ZipFile(export) as whole, zipfile.ZipFile(tmp_path / "forged.zip", "w") as forged:
        for member in whole.namelist():
            forged.writestr(member, _logits_document(**changes) if member == target else whole.read(member))
    with pytest.raises(StoreInvalidError, match="is not the array that the layout prescribes"):
        import_zip(tmp_path / "forged.zip", str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()
    try:
        _tamper(address, (target, _logits_document(**changes)))
    except StoreInvalidError:
        return
    with pytest.raises(StoreInvalidError):
        open_reader(address).run(name)
    _check_refused(address)


NUMBERS = {
    "seed beyond a column": {"key": {"seed": 2**80}},
    "parameters of 400 digits": {"env": {"parameters": 10**400}},
    "negative tokens": {"env": {"tokens": -1}},
    "seconds that are no number": {"env": {"duration_s": 1e999}},
    "a count that is a text": {"n_items": "300"},
    "a count that is a truth": {"nonfinite": True},
    "a digest that is a number": {"digest": 7},
    "throughput that is infinite": {"env": {"throughput": {"items": 1e999}}},
}


@pytest.mark.parametrize("changes", NUMBERS.values(), ids=NUMBERS.keys())
def test_numbers_that_no_run_has_are_refused(victim, changes):
    """Attributes with numbers that no table column holds, or other types, are one StoreInvalidError: in ls, analyze and verify."""
    address, name = victim
    attributes = json.loads(open_repository(address).keys()[1].get_many([f"runs/{name}/zarr.json"])[0])["attributes"]
    del attributes["seal"]
    for field, value in changes.items():
        attributes[field] = {**attributes[field], **value} if isinstance(value, dict) else value
    canonical = json.dumps(attributes, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    attributes["seal"] = hashlib.sha256(canonical.encode()).hexdigest()
    stored = json.dumps(group_document(attributes)).replace("Infinity", "1e999").encode()
    _tamper(address, (f"runs/{name}/zarr.json", stored))
    with pytest.raises(StoreInvalidError):
        _ = open_reader(address).catalog
    for command, arguments in ((main, ["ls"]), (analyzer.cli.main.main, ["sets"])):
        result = CliRunner().invoke(command, [*arguments, "--store", address])
        said = result.output.splitlines() if command is main else after_first_line(result.output)
        assert result.exit_code == 4 and len(said) == 1, result.output
    _check_refused(address)


def test_declared_sizes_are_bounded(victim):
    """A run that says it has a trillion items is refused by its declaration alone."""
    address, name = victim
    keys = open_repository(address).keys()[1]
    attributes = json.loads(keys.get_many([f"runs/{name}/zarr.json"])[0])["attributes"]
    for changes in ({"n_items": 10**12}, {"n_items": 0}, {"n_items": -5}, {"n_options": 10**9}, {"n_items": "many"}, {"n_items": 1e308}):
        rest = {key: value for key, value in attributes.items() if key != "seal"}
        _tamper(address, (f"runs/{name}/zarr.json", json_bytes(group_document(sealed({**rest, **changes})))))
        with pytest.raises(StoreInvalidError):
            open_reader(address).run(name)
        with pytest.raises(StoreInvalidError):
            list(open_reader(address).runs([name]))


def test_zstd_bomb_in_a_chunk_is_not_decompressed(victim):
    """A chunk of 65 kB that announces 2 GB is refused, within 300 MB of memory."""
    address, name = victim
    assert decompressed_bound(ZSTD_2_GB, 0) == 2**31 and len(ZSTD_2_GB) < 66_000
    _tamper(address, (f"runs/{name}/logits/c/0/0", ZSTD_2_GB + _checksum(ZSTD_2_GB)))
    with pytest.raises(StoreInvalidError, match="announces 2147483648 bytes"):
        open_reader(address).run(name)
    assert _peak_of_verify(address, expected=4) < 300 * 2**20


@pytest.mark.parametrize("folder", ["snapshots", "manifests", "transactions"])
def test_metadata_bombs_are_refused_unopened(victim, folder):
    """A metadata file of 65 kB that would decompress to 2 GB is refused, within 300 MB of memory."""
    address, _ = victim
    for path in (Path(address) / folder).iterdir():
        header = MAGIC + b"x".ljust(HEADER_BYTES - len(MAGIC) - 3) + b"\x01\x01\x01"
        path.write_bytes(header + ZSTD_2_GB)
    with pytest.raises(StoreInvalidError, match="would decompress to more"):
        open_reader(address)
    assert folder != "snapshots" or _peak_of_verify(address, expected=4) < 300 * 2**20


def test_huge_files_are_refused_unopened(victim):
    """A reference, a configuration or a chunk of absurd size is refused by its size."""
    address, _ = victim
    for name in ("refs/branch.main/ref.json", "config.yaml", "chunks/AAAAAAAAAAAAAAAAAAAA"):
        path = Path(address) / name
        before = path.read_bytes() if path.exists() else None
        with path.open("wb") as file:
            file.truncate(300_000_000)  # sparse
        with pytest.raises(StoreInvalidError, match="300000000 bytes"):
            open_reader(address)
        assert name != "config.yaml" or _peak_of_verify(address, expected=4) < 50 * 2**20
        path.unlink() if before is None else path.write_bytes(before)
    open_reader(address)


def test_symlinks_are_not_followed(victim, tmp_path):
    """A chunk, a folder or a branch that is a symbolic link is refused, wherever it points."""
    address, _ = victim
    secret = tmp_path / "secret"
    secret.write_bytes(b"private")
    chunk = next((Path(address) / "chunks").iterdir())
    chunk.unlink()
    chunk.symlink_to(secret)
    with pytest.raises(StoreInvalidError, match="symbolic link"):
        open_reader(address)
    _check_refused(address)


def test_special_files_are_refused(victim):
    """A named pipe among the chunks does not make a reader wait."""
    address, _ = victim
    os.mkfifo(Path(address) / "chunks" / "AAAAAAAAAAAAAAAAAAAA")
    with pytest.raises(StoreInvalidError, match="neither a file nor a folder"):
        open_reader(address)


def test_virtual_chunks_are_refused(victim, tmp_path):
    """A chunk that lives in a file outside the store is never read, configured or not."""
    address, name = victim
    secret = tmp_path / "secret"
    secret.write_bytes(b"private" * 100)
    session = open_repository(address).writable()
    session.store.set_virtual_ref(f"runs/{name}/logits/c/0/0", f"file://{secret}", offset=0, length=500, validate_container=False)
    session.commit("tamper")
    with pytest.raises(StoreInvalidError) as caught:
        open_reader(address).run(name)
    assert "private" not in str(caught.value)
    _check_refused(address)
    config = icechunk.RepositoryConfig.default()
    outside = icechunk.local_filesystem_store(str(tmp_path))
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(f"file://{tmp_path}/", outside))
    icechunk.Repository.open(icechunk.local_filesystem_storage(address), config=config).save_config()
    with pytest.raises(StoreInvalidError, match="virtual chunks"):
        open_reader(address)


@pytest.mark.parametrize("name", ["a\0b", "a" * 3000, "a\\b", ".hidden", "x\x1b[31m"], ids=["nul", "long", "backslash", "dot", "escape"])
def test_names_that_are_no_runs_are_refused(victim, name):
    """Run names with NUL, escapes, or thousands of characters end in one short sentence."""
    address, _ = victim
    _tamper(address, (f"runs/{name}/zarr.json", EMPTY_GROUP))
    result = CliRunner().invoke(main, ["ls", "--store", address])
    assert result.exit_code == 4 and "\x1b" not in result.output and "\0" not in result.output and len(result.output) < 400
    _check_refused(address)


def test_names_that_climb_out_are_refused(victim):
    """A key with `..` cannot be written, and asking for one is an ordinary miss."""
    address, _ = victim
    with pytest.raises(HedgemarkError):
        _tamper(address, ("runs/../../zarr.json", EMPTY_GROUP))
    for name in ("../../etc/passwd", "..", "a/../b", "\0", "a" * 3000):
        with pytest.raises(HedgemarkError):
            open_reader(address).run(name)


def test_deep_and_odd_json_is_one_error(victim):
    """Deep, huge, repeated or non-JSON metadata are refused as documents."""
    deep = b'{"zarr_format":3,"node_type":"group","attributes":{"a":' + b"[" * 5000 + b"]" * 5000 + b"}}"
    ambiguous = b'{"a": NaN}', b'{"a": 1e999}', b'{"a": 1, "a": 2}', b'{"a": "\\ud800"}', b"\xff\xfe"
    for stored in (deep, *ambiguous, b"[" * 10**5, b"{}" * 2, b"1", b'{"a":' + b"9" * 10_000 + b"}", b"x" * 2_000_000, b""):
        with pytest.raises(StoreInvalidError):
            parse_document(stored, "document")
    address, name = victim
    _tamper(address, (f"runs/{name}/zarr.json", deep))
    with pytest.raises(StoreInvalidError):
        open_reader(address).run(name)
    _check_refused(address)


def test_problems_are_listed_in_full(victim):
    """`verify` goes on after the first problem."""
    address, name = victim
    strangers = (f"runs/{name}/extra", "runs/other", "stranger")
    _tamper(address, *((f"{group}/zarr.json", EMPTY_GROUP) for group in strangers))
    problems = verify_store(address).problems
    assert len(problems) == 3 and any("stranger" in problem for problem in problems) and any("extra" in problem for problem in problems)


def _peak_of_verify(address: str, expected: int) -> int:
    """Return the peak memory in bytes of `store verify` in a process of its own, less that of importing the library."""
    code = (
        "import sys, resource, store.upkeep.verify, icechunk, polars; from store.cli.main import main\n"
        "base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: main(['verify', '--store', sys.argv[1]])\n"
        "except SystemExit as error: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base); sys.exit(error.code)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, address], capture_output=True, text=True, check=False)
    assert result.returncode == expected, result.stderr
    unit = 1 if sys.platform == "darwin" else 1024
    return int(result.stdout.splitlines()[-1]) * unit


