"""A compressed model that is saved is the model that was measured: loaded again it has its weights and its answers, or it is not saved."""

import gc
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from first_line import after_first_line
from numpy.typing import NDArray
from producer_tiny import AT_HAND, tiny

import producer.methods
from producer.cli.main import main
from store import open_reader

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.producer

SAVEABLE = [
    ("rtn", "w4a16-g32"), ("rtn", "w3a16-g32"), ("rtn", "w8a16"), ("rtn", "nvfp4"), ("rtn", "mxfp8"), ("rtn", "w8a8-fp8-static"),
    ("gptq", "w4a16-g32"), ("gptq", "mxfp4"), ("awq", "w4a16-g32"), ("smoothquant", "w8a8"), ("smoothquant", "w6a6"),
    ("magnitude", "2:4"), ("wanda", "0.5"), ("sparsegpt", "0.5"), *([("autoround", "w3a16-g32")] if "autoround" in AT_HAND else []),
]  # fmt: skip
FEW = [("rtn", "w4a16-g32"), ("rtn", "nvfp4"), ("smoothquant", "w8a8"), ("wanda", "0.5")]


def run(store: Path, *words: str, model: str = "ref-s", limit: str = "20") -> Result:
    """Run `produce` on a few urns."""
    return CliRunner().invoke(main, ["--store", str(store), "--model", model, "--task", "urn", "--limit", limit, *words])


def stored(store: Path) -> NDArray[np.float32]:
    """Return the option logits of a store's only run."""
    reader = open_reader(str(store))
    (name,) = reader.catalog["name"]
    return reader.run(name).logits


def check_round_trip(model: str, method: str, level: str, folder: Path) -> None:
    """Save a model, and run the saved checkpoint as somebody else's."""
    made = run(folder / "made", "--method", method, "--level", level, "--save", str(folder / "saved"), model=model)
    assert made.exit_code == 0, made.output
    assert f"{folder / 'saved'} holds the compressed model" in made.stderr
    record = json.loads((folder / "saved" / "hedgemark.json").read_text())
    assert record["loaded_again"]["largest_logit_change"] <= record["loaded_again"]["allowed"]
    assert record["loaded_again"]["largest_weight_change_in_roundings"] <= 1
    assert record["identity"]["level"] == level and len(record["runs"]) == 1
    read = run(folder / "read", "--method", "checkpoint", model=str(folder / "saved"))
    assert read.exit_code == 0, read.output
    before, after = stored(folder / "made"), stored(folder / "read")
    allowed = record["loaded_again"]["largest_logit_change_as_loaded"]
    integer_inputs = method == "smoothquant"
    assert np.nanmax(np.abs(before - after)) < (3 * allowed if integer_inputs else 1e-4)
    assert (folder / "saved" / "README.md").read_text().startswith("---\ntags: [hedgemark")


@pytest.mark.parametrize(("method", "level"), FEW)
def test_a_saved_model_gives_its_runs_again(method: str, level: str, tmp_path: Path) -> None:
    """`--save` and then `--method checkpoint` on the folder: the same option logits."""
    check_round_trip("ref-s", method, level, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ref-m", "ref-moe"])
@pytest.mark.parametrize(("method", "level"), SAVEABLE)
def test_every_saveable_method_gives_its_runs_again(model: str, method: str, level: str, tmp_path: Path) -> None:
    """The same for a larger model and a mixture of experts, for every method and format that can be saved."""
    check_round_trip(model, method, level, tmp_path)


def test_transformers_loads_a_saved_model(tmp_path: Path) -> None:
    """A packed checkpoint is an ordinary one: transformers alone gives the logits of our reader."""
    from transformers import AutoModelForCausalLM

    from producer.models.find import find_model
    from producer.models.load import load_model

    assert run(tmp_path / "s", "--method", "rtn", "--level", "w4a16-g32", "--save", str(tmp_path / "saved")).exit_code == 0
    ids = torch.arange(40).reshape(2, 20) % 60
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    ours = load_model(find_model(str(tmp_path / "saved")), "float32", "cpu")
    with torch.no_grad():
        assert float((theirs(input_ids=ids).logits - ours(input_ids=ids).logits).abs().max()) < 1e-4


def test_every_file_of_a_saved_model_can_be_read_by_another_user(tmp_path: Path) -> None:
    """Files that `--save` writes, or copies from a folder of `--models`, have the mode that the umask gives, the weights too."""
    words, before = ("--method", "rtn", "--level", "w4a16-g32"), os.umask(0o022)
    try:
        for out in ("made", "copied"):
            made = run(tmp_path / f"{out}-store", *words, "--models", str(tmp_path / "kept"), "--save", str(tmp_path / out))
            assert made.exit_code == 0 and (tmp_path / out / "model.safetensors").is_file(), made.output
    finally:
        os.umask(before)
    assert [str(path) for path in tmp_path.rglob("*") if path.stat().st_mode & 0o777 != (0o755 if path.is_dir() else 0o644)] == []
    assert "gave the option logits of the model in memory exactly on 8 items" in (tmp_path / "made" / "README.md").read_text()


def test_a_kept_model_is_not_compressed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """With `--models` another prompt a week later costs a load, and its run is the one that compressing again would have made."""
    words = ("--method", "smoothquant", "--level", "w8a8")
    kept = ("--models", str(tmp_path / "kept"))
    assert run(tmp_path / "first", *words, *kept).exit_code == 0
    assert run(tmp_path / "fresh", *words, "--prompt", "shared").exit_code == 0

    def refuse(*_: Any) -> Any:
        raise AssertionError("compressed a second time")

    monkeypatch.setattr(producer.methods.METHODS["smoothquant"].compress, "__code__", refuse.__code__)
    again = run(tmp_path / "again", *words, *kept, "--prompt", "shared")
    assert again.exit_code == 0, again.output
    assert "is loaded from" in caplog.text
    keys = [open_reader(str(tmp_path / name)).catalog["name"].to_list() for name in ("fresh", "again")]
    assert keys[0] == keys[1]
    np.testing.assert_allclose(stored(tmp_path / "again"), stored(tmp_path / "fresh"), atol=1e-4)


@pytest.mark.parametrize("name", ["model.safetensors", "hedgemark.json"])
def test_a_kept_model_that_was_changed_is_refused(name: str, tmp_path: Path) -> None:
    """One flipped bit in a kept model, or in what was measured of it, is one sentence, and no run."""
    words = ("--method", "rtn", "--level", "w4a16-g32", "--models", str(tmp_path / "kept"))
    assert run(tmp_path / "first", *words).exit_code == 0
    (weights,) = (tmp_path / "kept").glob(f"*/{name}")
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(bytes(content))
    again = run(tmp_path / "again", *words)
    assert again.exit_code == 5
    assert "was changed since it was written" in again.stderr and len(after_first_line(again.stderr)) == 1


def test_half_a_saved_model_is_never_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up while a model is saved leaves no folder, and the next command saves it."""
    words = ("--method", "rtn", "--level", "w4a16-g32", "--models", str(tmp_path / "kept"))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("huggingface_hub.save_torch_state_dict", full)
        result = run(tmp_path / "s", *words)
    assert result.exit_code == 5 and "No space left on device" in result.stderr
    assert not list((tmp_path / "kept").iterdir())
    assert run(tmp_path / "s", *words).exit_code == 0
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_a_disk_that_fills_up_while_a_kept_model_is_copied_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--save` of a model that `--models` has: one sentence, exit 5, no folder, no run; with room again the copy is whole."""
    words = ("--method", "rtn", "--level", "w4a16-g32", "--models", str(tmp_path / "kept"))
    assert run(tmp_path / "first", *words).exit_code == 0
    copying = shutil.copyfile

    def full(source: str, *rest: Any, **more: Any) -> Any:
        if str(source).endswith(".safetensors"):
            raise OSError(28, "No space left on device")
        return copying(source, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", full)
        result = run(tmp_path / "s", *words, "--save", str(tmp_path / "out"))
    assert result.exit_code == 5 and "No space left on device" in result.stderr and len(after_first_line(result.stderr)) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "first", "kept"}
    assert run(tmp_path / "s", *words, "--save", str(tmp_path / "out")).exit_code == 0
    (kept,) = (tmp_path / "kept").iterdir()
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {p.name: p.read_bytes() for p in kept.iterdir()}


def test_a_model_that_comes_back_different_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check is one that can fail: weights that lose a bit on the way are refused, and nothing is left."""
    from producer.saved import folder as written

    honest = written.packed_tensors

    def damaged(model: Any, settings: Any) -> dict[str, Any]:
        tensors: dict[str, Any] = honest(model, settings)
        name = next(name for name in tensors if name.endswith("weight_scale"))
        return tensors | {name: tensors[name] * 1.01}

    monkeypatch.setattr(written, "packed_tensors", damaged)
    result = run(tmp_path / "s", "--method", "rtn", "--level", "w4a16-g32", "--save", str(tmp_path / "saved"))
    assert result.exit_code == 5 and "cannot be saved faithfully" in result.stderr
    assert not (tmp_path / "saved").exists()


def test_a_number_that_is_lost_on_the_way_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN in one weight, such as of an expert that no item of the check is sent to, or in one answer, is no small difference."""
    from producer.saved import library

    model = tiny()
    layers = library.target_layers(model)
    stored = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    monkeypatch.setattr(library, "stored_weights", lambda *_: stored.items())
    assert library._roundings(model, Path()) == 0
    list(stored.values())[2][0, 0] = np.nan
    assert np.isnan(library._roundings(model, Path()))
    logits = np.array([[1.0, 2.0, np.nan], [0.5, 0.25, 0.125]], np.float32)
    assert library._largest(logits, logits + 0.5) == 0.5
    lost = logits.copy()
    lost[1, 1] = np.nan
    assert library._largest(logits, lost) == np.inf


@pytest.mark.parametrize(("method", "level"), [("rtn", "w4a16-g32"), ("wanda", "0.5")])
def test_one_model_is_in_memory_while_another_is_checked(method: str, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the checkpoint is loaded again nothing holds the compressed model any more; the run is that of an undisturbed command."""
    from producer.saved import library

    loading, held = library.load_checkpoint, []

    def counted(*rest: Any) -> Any:
        gc.collect()
        storages = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for tensor in gc.get_objects()
            if issubclass(type(tensor), torch.Tensor) and tensor.device.type == "cpu" and tensor.layout == torch.strided
        }
        before = sum(storages.values())
        loaded = loading(*rest)
        held.append(before / sum(parameter.nbytes for parameter in loaded.parameters()))
        return loaded

    words = ("--method", method, "--level", level, "--compression-data", "embedded:8x32")
    assert run(tmp_path / "plain", *words, model="ref-m").exit_code == 0
    monkeypatch.setattr(library, "load_checkpoint", counted)
    kept = run(tmp_path / "s", *words, "--models", str(tmp_path / "kept"), "--save", str(tmp_path / "saved"), model="ref-m")
    assert kept.exit_code == 0, kept.output
    assert len(held) == 1 and held[0] < 0.5
    np.testing.assert_allclose(stored(tmp_path / "s"), stored(tmp_path / "plain"), atol=1e-4)
    (folder,) = (tmp_path / "kept").iterdir()
    assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "saved").iterdir()}


def test_levels_after_a_kept_one_are_those_of_commands_of_their_own(tmp_path: Path) -> None:
    """A sweep empties each model that it keeps; the dense model that the next level starts from is not touched."""
    words = ("--method", "magnitude", "--level", "0.3", "--level", "0.5")
    assert run(tmp_path / "s", *words, "--models", str(tmp_path / "kept")).exit_code == 0
    assert run(tmp_path / "plain", *words).exit_code == 0
    ours, plain = (open_reader(str(tmp_path / name)) for name in ("s", "plain"))
    assert sorted(ours.catalog["name"]) == sorted(plain.catalog["name"]) and len(ours.catalog) == 2
    for name in ours.catalog["name"]:
        np.testing.assert_allclose(ours.run(name).logits, plain.run(name).logits, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--method", "slicegpt"), "changes width between layers"),
        (("--method", "llm-pruner"), "widths of their own"),
        (("--method", "quarot"), "rotates activations"),
        (("--method", "dense"), "this request makes 0"),
        (("--method", "wanda", "--level", "0.3", "--level", "0.5"), "this request makes 2"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_any_work(
    words: tuple[str, ...], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason comes before a weight is loaded, and no store is left."""
    monkeypatch.setattr("producer.backends.loaded_models.load_model", None)
    result = run(tmp_path / "s", *words, "--save", str(tmp_path / "saved"))
    assert result.exit_code == 2 and sentence in result.stderr
    assert not (tmp_path / "s").exists() and not (tmp_path / "saved").exists()


def test_a_folder_in_use_is_not_written_over(tmp_path: Path) -> None:
    """A folder that holds anything is refused."""
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "thesis.tex").write_text("mine")
    result = run(tmp_path / "s", "--method", "rtn", "--save", str(tmp_path / "saved"))
    assert result.exit_code == 2 and "is not empty" in result.stderr
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["thesis.tex"]


def test_a_method_that_cannot_be_kept_still_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`--models` with a method that no checkpoint can hold says so, and makes the run."""
    result = run(tmp_path / "s", "--method", "slicegpt", "--models", str(tmp_path / "kept"))
    assert result.exit_code == 0, result.output
    assert "is not kept among the saved models" in caplog.text
    assert not (tmp_path / "kept").exists()
