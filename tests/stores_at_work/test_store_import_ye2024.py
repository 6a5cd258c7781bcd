"""The importer of published logits: real files come in whole, hostile pickles do nothing."""

import json
import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from first_line import after_first_line

from schemas.errors import UsageError
from store import open_reader
from store.cli.main import main
from store.importers.safe_pickle import load_plain_pickle

NAME = "toy-1b_halu_dialogue_base_icl1.pkl"


class Attack:
    """A pickle of this would run a command."""

    def __reduce__(self):
        return os.system, ("touch /tmp/hedgemark-was-here",)


def _folders(tmp_path: Path, logits: object, n_items: int = 4) -> list[str]:
    data, pickles = tmp_path / "data", tmp_path / "pickles"
    data.mkdir()
    pickles.mkdir()
    (data / "halu_dialogue.json").write_text(json.dumps([{"id": i, "answer": "ABCF"[i % 4]} for i in range(n_items)]))
    (pickles / NAME).write_bytes(pickle.dumps(logits))
    return ["import", "ye2024", "--store", str(tmp_path / "store"), "--data", str(data), "--logits", str(pickles)]


def _rows(n_items: int = 4, **changes: object) -> list[dict[str, object]]:
    return [{"id": i, "logits_options": np.arange(6, dtype=np.float32) + i, **changes} for i in range(n_items)]


def test_published_runs_roundtrip(shared_data, tmp_path):
    """A slice of the published files comes in with their names, order and logits unchanged."""
    folder = tmp_path / "logits"
    folder.mkdir()
    for task in ("mmlu_10k", "halu_summarization"):
        (folder / f"Yi-6B_{task}_base_icl1.pkl").symlink_to(shared_data / "ye2024" / "outputs_base" / f"Yi-6B_{task}_base_icl1.pkl")
    url = str(tmp_path / "store")
    arguments = ["import", "ye2024", "--store", url, "--data", str(shared_data / "ye2024" / "data"), "--logits", str(folder)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    reader = open_reader(url)
    assert reader.catalog["task"].to_list() == ["halusum", "mmlu"] and reader.catalog["model"].unique().to_list() == ["Yi-6B"]
    name = reader.catalog["name"][1]
    rows = load_plain_pickle((folder / "Yi-6B_mmlu_10k_base_icl1.pkl").read_bytes(), "mmlu")
    items = reader.items(reader.run(name).key.items_hash)
    np.testing.assert_array_equal(reader.run(name).logits, np.stack([row["logits_options"] for row in rows]))
    assert np.flatnonzero(items.demonstration).tolist() == [1, 3, 5, 7, 9] and len(items.subjects) == 57
    assert json.loads(items.texts[0])["question"] == "Where is the Louvre museum?"


def test_second_import_changes_nothing(tmp_path):
    """Importing the same files again adds no commit."""
    arguments = _folders(tmp_path, _rows())
    assert CliRunner().invoke(main, arguments).exit_code == 0
    snapshot = open_reader(str(tmp_path / "store")).snapshot
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert open_reader(str(tmp_path / "store")).snapshot == snapshot


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (Attack(), "posix.system"),
        ([{"id": 0, "logits_options": Attack()}], "posix.system"),
        (_rows(3), "ids differ"),
        (_rows(4, id=1), "repeated ids|ids differ"),
        (_rows(4, logits_options=np.arange(5, dtype=np.float32)), "6 half- or single-precision"),
        (_rows(4, logits_options=np.arange(6)), "6 half- or single-precision"),
        (_rows(4, logits_options=[1.0] * 6), "6 half- or single-precision"),
        (7, "not a list"),
        (_rows(4, logits_options=np.full(6, np.nan, dtype=np.float32)), "NaN or infinite"),
    ],
)
def test_bad_pickles_write_nothing(tmp_path, logits, message):
    """A pickle that is not plain logits is named in one sentence, runs nothing, and creates no store."""
    result = CliRunner().invoke(main, _folders(tmp_path, logits))
    assert result.exit_code in (2, 5) and len(after_first_line(result.output)) == 1
    assert any(part in result.output for part in message.split("|"))
    assert not (tmp_path / "store").exists() and not Path("/tmp/hedgemark-was-here").exists()


def test_nonfinite_logits_come_in_when_allowed(tmp_path):
    """--allow-nonfinite stores NaN logits, flagged."""
    arguments = _folders(tmp_path, _rows(4, logits_options=np.full(6, np.nan, dtype=np.float32)))
    assert CliRunner().invoke(main, [*arguments, "--allow-nonfinite"]).exit_code == 0
    assert open_reader(str(tmp_path / "store")).catalog["nonfinite"].to_list() == [4]


BROKEN = [b"", b"\x80", b"cos\nsystem\n(S'id'\ntR.", pickle.dumps(_rows())[:-9], b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f"]


@pytest.mark.parametrize("content", BROKEN)
def test_broken_pickles_are_one_error(content):
    """Truncated, empty and old-protocol pickles end in the same error class."""
    with pytest.raises(UsageError):
        load_plain_pickle(content, "x.pkl")


def _build(module: str, name: str) -> bytes:
    """Return a pickle that sets an attribute of an admitted function or type."""
    return f"c{module}\n{name}\n".encode() + b"}(\x8c\x04evilK\x01ub."


def _endless_key(step: bytes, hide: bytes = b"", end: bytes = b"Ns") -> bytes:
    """Return a pickle whose one key is a tuple that holds a tuple twice, 60 deep: its hash takes 2 ** 60 steps."""
    return b"\x80\x04}" + b"(" * (end != b"Ns") + b"N" + step * 60 + hide + end + b"."


TWICE = b"q\x01h\x01\x86"
HOSTILE = {
    "a key without end": _endless_key(TWICE),
    "a key without end, one of several": _endless_key(TWICE, end=b"Nu"),
    "a key without end, doubled": _endless_key(b"2\x86"),
    "a key without end, built": _endless_key(TWICE + b"Nb"),
    "a key without end, filled with nothing": _endless_key(TWICE + b"(e"),
    "a key without end, popped": _endless_key(TWICE, hide=b"q\x02K\x010h\x02\x86"),
    "a key of many levels": b"\x80\x04})" + b"\x85" * 200_000 + b"Ns.",
    "a set": b"\x80\x04\x8f(K\x01\x90.",
    "more taken than there is": b"\x80\x04}Ns.",
    "a mark that is not there": b"\x80\x04}Nu.",
    "a memo of 4 GB in 9 bytes": b"\x80\x04]r" + (2**31 - 1).to_bytes(4, "little") + b".",
    "a memo place as text": b"\x80\x04]p2147483647\n.",
    "bytes that are not there": b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b".",
    "a frame that is not there": b"\x80\x04\x95" + (2**62).to_bytes(8, "little") + b"].",
    "no end": b"\x80\x04]",
    "an extension": b"\x80\x04\x82\x01.",
    "a persistent object": b"\x80\x04Px\n.",
    "16 GB of array": b"\x80\x04cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n\x8a\x05\x00\x00\x00\x00\x04\x85C\x01btR.",
    "2 GB of nothing": b"\x80\x04cnumpy._core.multiarray\nscalar\n(cnumpy\ndtype\n\x8c\x0bV2000000000\x85RNtR.",
    "objects": pickle.dumps(np.array([{}, 1], dtype=object)),
    "texts": pickle.dumps(np.array(["a"])),
    "records": pickle.dumps(np.zeros(1, dtype=[("a", "f4")])),
    **{f"an attribute of {name}": _build("numpy._core.multiarray", name) for name in ("_reconstruct", "scalar")},
    **{f"an attribute of {name}": _build("numpy", name) for name in ("ndarray", "dtype")},
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_pickles_take_no_memory_and_change_nothing(content):
    """A few bytes that ask for gigabytes, for other types, or to change numpy are refused before they get them."""
    tracemalloc.start()
    with pytest.raises(UsageError):
        load_plain_pickle(content, "x.pkl")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < max(2**20, 60 * len(content))
    from numpy._core import multiarray

    assert not any(hasattr(thing, "evil") for thing in (np.ndarray, np.dtype, multiarray._reconstruct, multiarray.scalar))


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "f2", "f8", "i8", "?"])
def test_arrays_of_numbers_are_what_pickle_makes_of_them(protocol, dtype):
    """Arrays and scalars of any byte order, and containers, are read as the pickle module reads them."""
    array = np.arange(6).reshape(2, 3).astype(dtype)
    held = {"a": array, "b": np.asfortranarray(array), "c": array[0, 1], "d": ("x", None, True, 2.5, 2**70, ["y"])}
    content = pickle.dumps(held, protocol)
    back, plain = load_plain_pickle(content, "x.pkl"), pickle.loads(content)
    for name in "abc":
        np.testing.assert_array_equal(back[name], held[name])
        assert back[name].dtype == plain[name].dtype
    assert back["d"] == held["d"]


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_protocols_that_need_more_functions_are_refused(protocol):
    """Before protocol 3 bytes are made by a function of another module."""
    with pytest.raises(UsageError, match=r"x\.pkl"):
        load_plain_pickle(pickle.dumps([np.zeros(3)], protocol), "x.pkl")


def test_unknown_file_name_is_refused(tmp_path):
    """A pickle whose name is not of the published form stops the import."""
    arguments = _folders(tmp_path, _rows())
    (tmp_path / "pickles" / NAME).rename(tmp_path / "pickles" / "toy.pkl")
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and "'toy.pkl' is not named" in result.output
