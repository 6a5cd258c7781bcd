"""Models by name: which files are the weights, what they take in memory, and what is said of a folder that is no model."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from click.testing import CliRunner
from first_line import after_first_line
from producer_packed import packed_folder
from producer_standin import save_standin
from producer_tiny import SIZES, tiny
from safetensors.torch import load_file, save_file

import producer.models.find
from producer.cli.main import main
from producer.models.find import ModelFiles, fetch_weights, find_model
from producer.models.load import load_config, load_model
from producer.models.weights_hash import parameters, tensors_hash, weight_bytes, weight_bytes_as, weights_hash
from producer.reference.tokenizer import build_tokenizer
from schemas.errors import HedgemarkError, UsageError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.producer


@pytest.fixture(autouse=True)
def own_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEDGEMARK_CACHE", str(tmp_path / "cache"))


def shards(folder: Path) -> list[str]:
    """Split a stand-in's single weights file into two shards with an index, and return their names."""
    whole = load_file(folder / "model.safetensors")
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    places = {tensor: names[number % 2] for number, tensor in enumerate(sorted(whole))}
    for name in names:
        save_file({t: whole[t] for t in whole if places[t] == name}, folder / name, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / "model.safetensors").unlink()
    return names


def save_gguf(path: Path) -> Path:
    """Write a tiny model as GGUF, its matrices in eight bits, and return the path."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(SIZES["num_hidden_layers"])
    writer.add_context_length(SIZES["max_position_embeddings"])
    writer.add_embedding_length(SIZES["hidden_size"])
    writer.add_feed_forward_length(SIZES["intermediate_size"])
    writer.add_head_count(SIZES["num_attention_heads"])
    writer.add_head_count_kv(SIZES["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(SIZES["vocab_size"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, SIZES["num_hidden_layers"])
    for name, weight in tiny().state_dict().items():
        kind = gguf.GGMLQuantizationType.Q8_0 if weight.ndim == 2 else gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(weight.numpy(), kind)
        writer.add_tensor(str(names.get_name(name, (".weight",))), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("form", ["plain", "gptq", "awq", "gguf"])
def test_weights_count_as_they_lie_in_memory(form: str, tmp_path: Path) -> None:
    """Whatever weights are packed in, their size is that of the model as it is loaded, and is known without reading them."""
    if form == "gguf":
        files = find_model(str(save_gguf(tmp_path / "tiny.gguf")))
    else:
        if form == "plain":
            tiny().save_pretrained(tmp_path)
        else:
            packed_folder(tmp_path, {"quant_method": form, "bits": 4, "group_size": 16})
        files = find_model(str(tmp_path))
    model = load_model(files, "float32", "cpu")
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    config = load_config(files)
    assert weight_bytes_as(files, config, "float32") == size
    assert weight_bytes_as(files, config, "bfloat16") == size // 2
    assert form == "plain" or weight_bytes(files) < size // 2  # what it took for what it is


def test_a_packed_model_that_fits_only_packed_is_planned_layer_by_layer(tmp_path: Path) -> None:
    """The dry run says what will be: unpacked the weights are larger than the budget, though their files are not."""
    packed_folder(tmp_path, {"quant_method": "gptq", "bits": 4, "group_size": 16})
    build_tokenizer(tmp_path)
    files = find_model(str(tmp_path))
    size = weight_bytes_as(files, load_config(files), "float32")
    asked = ["--model", str(tmp_path), "--method", "checkpoint", "--task", "urn", "--limit", "2", "--device", "cpu", "--dtype", "float32"]
    asked += ["--device-memory", str(3 * size // 4), "--store", str(tmp_path / "store"), "--dry-run"]
    assert weight_bytes(files) < 3 * size // 4
    assert "layer by layer within" in CliRunner().invoke(main, asked).stdout


def test_a_model_that_transformers_does_not_build_counts_as_its_files(tmp_path: Path) -> None:
    """vLLM runs models of other types; their files then say how large they are."""
    from transformers import T5Config

    (tmp_path / "model.safetensors").write_bytes(bytes(400))
    assert parameters(T5Config()) == 0
    assert weight_bytes_as(ModelFiles("other", tmp_path), T5Config(), "bfloat16") == 200


@pytest.mark.parametrize(("field", "count"), [("num_hidden_layers", 2**80), ("num_hidden_layers", 1_001), ("num_local_experts", 10**9)])
def test_a_config_with_endless_layers_is_refused(field: str, count: int, tmp_path: Path) -> None:
    """transformers builds layers one by one, even to count parameters, so that 2**80 of them would never end."""
    shutil.copytree(find_model("ref-moe").folder, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, field: count}))
    with pytest.raises(UsageError, match=f"{field} is {count}; no model has more than"):
        load_config(find_model(str(tmp_path / "model")))


def test_a_damaged_cache_of_hashes_is_not_believed(tmp_path: Path) -> None:
    """Every flipped bit of the cached hashes, and JSON of other shapes, leave the hash as it is."""
    files = find_model("ref-s")
    whole = weights_hash(files)
    (cache,) = (tmp_path / "cache").rglob("hashes.json")
    known, rng = cache.read_bytes(), np.random.default_rng(0)
    for place in rng.integers(0, len(known), 100):
        cache.write_bytes(known[:place] + bytes([known[place] ^ (1 << int(rng.integers(8)))]) + known[place + 1 :])
        assert weights_hash(files) == whole
    name = json.dumps(str((files.folder / "config.json").resolve()))
    entries = ("5", "[]", "[1, 2]", "[1, 2, null, 3]", r'[1, 2, "\ud800", "x"]')
    for other in ("", "5", "[1, 2]", "[" * 5_000, *(f"{{{name}: {entry}}}" for entry in entries)):
        cache.write_text(other)
        assert weights_hash(files) == whole


def test_a_file_of_the_same_size_and_time_is_hashed_again(tmp_path: Path) -> None:
    """Weights that are exchanged with their time kept, as copies and archives do, are another model."""
    folder, other = save_standin(tmp_path / "standin"), save_standin(tmp_path / "other", seed=1)
    files, weights = find_model(str(folder)), folder / "model.safetensors"
    before, times = weights_hash(files), weights.stat()
    weights.write_bytes((other / "model.safetensors").read_bytes())
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert weights.stat().st_size == times.st_size
    assert weights_hash(files) != before


def test_a_single_weights_file_is_hashed_by_name_and_content(tmp_path: Path) -> None:
    """The hash of an ordinary folder is the one of every store written before: weights, config and tokenizer in this order."""
    folder = save_standin(tmp_path / "standin")
    parts = [folder / name for name in ("model.safetensors", "config.json", "tokenizer.json")]
    text = "".join(f"{path.name}:{hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in parts)
    assert weights_hash(find_model(str(folder))) == hashlib.sha256(text.encode()).hexdigest()


def test_a_model_in_memory_is_hashed_by_its_tensors() -> None:
    """A bit of a weight or its type makes another model; the grid that weights were rounded to does not, as no forward pass reads it."""

    def model(change: float = 0, dtype: torch.dtype = torch.bfloat16, grid: float = 1) -> torch.nn.Module:
        layer = torch.nn.Linear(3, 2, dtype=dtype)
        layer.register_buffer("scale", torch.tensor(2.0))
        layer.register_buffer("weight_scale", torch.full((2, 1), grid))
        torch.nn.init.constant_(layer.weight, 1)
        torch.nn.init.constant_(layer.bias, change)
        return torch.nn.Sequential(layer)

    same = tensors_hash(model())
    assert len(same) == 64
    assert same == tensors_hash(model(grid=2)) != tensors_hash(model(2**-130))
    assert same != tensors_hash(model(dtype=torch.float32))


def test_settings_of_quantization_in_a_file_of_their_own_are_in_the_hash(tmp_path: Path) -> None:
    """Two labels of one GPTQ file are two models, with other zero points; a file that is not read, since the config says it, is none."""
    packed_folder(tmp_path, {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": True})
    files, config, beside = find_model(str(tmp_path)), tmp_path / "config.json", tmp_path / "quantize_config.json"
    said = json.loads(config.read_text())
    hashes = {}
    for label in ("gptq", "gptq_v2"):
        beside.write_text(json.dumps({"bits": 4, "group_size": 16, "desc_act": True, "checkpoint_format": label}))
        config.write_text(json.dumps(said))
        whole = weights_hash(files)
        config.write_text(json.dumps({name: value for name, value in said.items() if name != "quantization_config"}))
        hashes[label] = weights_hash(files), load_model(files, "float32", "cpu").model.layers[0].mlp.up_proj.weight, whole
    first, second = hashes.values()
    assert first[0] != second[0]
    assert not torch.equal(first[1], second[1])
    assert first[2] == second[2]


@pytest.mark.parametrize("sharded", [False, True])
def test_weights_stored_twice_count_once(sharded: bool, tmp_path: Path) -> None:
    """Beside the files that are loaded, another form of the same weights changes neither size nor hash."""
    folder = save_standin(tmp_path / "standin")
    if sharded:
        shards(folder)
    files = find_model(str(folder))
    before = weight_bytes(files), weights_hash(files)
    for name in ("consolidated.safetensors", "pytorch_model.bin", "training_args.bin"):
        (folder / name).write_bytes(b"other")
    assert (weight_bytes(files), weights_hash(files)) == before


def test_packed_weights_stored_twice_are_read_once(tmp_path: Path) -> None:
    """A second form of a packed checkpoint beside the one that the index or the usual name points to is not read."""
    packed_folder(tmp_path, {"quant_method": "gptq", "bits": 4, "group_size": 16})
    (tmp_path / "consolidated.safetensors").write_bytes(b"not read")
    load_model(find_model(str(tmp_path)), "float32", "cpu")


def test_packed_weights_in_the_older_format_are_read(tmp_path: Path) -> None:
    """GPTQ in pytorch_model.bin gives the model that it gives in model.safetensors."""
    packed_folder(tmp_path, {"quant_method": "gptq", "bits": 4, "group_size": 16})
    expected = load_model(find_model(str(tmp_path)), "float32", "cpu").state_dict()
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    found = load_model(find_model(str(tmp_path)), "float32", "cpu").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_missing_shard_is_named_as_such(tmp_path: Path) -> None:
    """Where one of the files that the index names is not there, the model is refused before any of it is loaded."""
    folder = save_standin(tmp_path / "standin")
    (folder / shards(folder)[0]).unlink()
    files = find_model(str(folder))
    assert weight_bytes(files) == 0
    with pytest.raises(HedgemarkError, match=r"the weights of 'standin' are not in .*, or not all of them; expected: model.safetensors"):
        weights_hash(files)


def test_shards_of_two_saves_are_not_one_model(tmp_path: Path) -> None:
    """Libraries keep the last tensor of a name; one in two shards must have one value, and be where the index says."""
    folder = save_standin(tmp_path / "standin")
    first, second = (folder / name for name in shards(folder))
    here, there, index = load_file(first), load_file(second), folder / "model.safetensors.index.json"
    name = min(here)
    files, before = find_model(str(folder)), load_model(find_model(str(folder)), "float32", "cpu").state_dict()
    save_file(there | {name: here[name].clone()}, second, metadata={"format": "pt"})
    after = load_model(files, "float32", "cpu").state_dict()
    assert all(torch.equal(after[each], before[each]) for each in before)
    save_file(there | {name: here[name] + 1}, second, metadata={"format": "pt"})
    with pytest.raises(HedgemarkError, match=f"{first.name} and {second.name} in .* hold different tensors {name}; one is of another save"):
        load_model(files, "float32", "cpu")
    save_file(there, second, metadata={"format": "pt"})
    places = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": places | {"model.layers.0.self_attn.q_proj.bias": second.name}}))
    with pytest.raises(HedgemarkError, match=rf"says that {second.name} holds tensor model.layers.0.self_attn.q_proj.bias, which it does"):
        load_model(files, "float32", "cpu")


@pytest.mark.parametrize(
    ("held", "fetched"),
    [
        (["model.safetensors", "consolidated.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (["model-1.safetensors", "model-2.safetensors", "consolidated.safetensors"], ["model-1.safetensors", "model-2.safetensors"]),
        (["gptq_model-4bit-128g.safetensors", "pytorch_model.bin"], ["gptq_model-4bit-128g.safetensors"]),
        (["pytorch_model.bin"], ["pytorch_model.bin"]),
        (["part-1.bin", "part-2.bin"], ["part-1.bin", "part-2.bin"]),
    ],
)
def test_only_the_weights_that_are_loaded_are_downloaded(
    held: list[str], fetched: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of weights in several forms one is fetched, the one that the index names; *.bin where there is nothing else."""
    if "model-1.safetensors" in held:
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": held[0], "b": held[1]}}))

    def download(hub_id: str, patterns: list[str], revision: str) -> Path:
        for name in held:
            if any(Path(name).match(pattern) for pattern in patterns):
                (tmp_path / name).touch()
        return tmp_path

    monkeypatch.setattr(producer.models.find, "_download", download)
    fetch_weights(ModelFiles("m", tmp_path, hub_id="owner/m", revision="r"))
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix in (".bin", ".safetensors")) == fetched


def test_weights_in_the_older_format_are_read(tmp_path: Path) -> None:
    """A folder with pytorch_model.bin alone is a model: hashed, measured and loaded."""
    folder = save_standin(tmp_path / "standin", tie_word_embeddings=False)
    tensors: dict[str, Any] = load_file(folder / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    files = find_model(str(folder))
    assert len(weights_hash(files)) == 64
    loaded = load_model(files, "float32", "cpu").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def without_a_tensor(path: Path) -> None:
    tensors = load_file(path)
    del tensors["model.layers.0.self_attn.q_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("file", "damage", "exit_code", "message"),
    [
        ("tokenizer.json", Path.unlink, 2, "the tokenizer (tokenizer.json or tokenizer.model) of 'standin' in"),
        ("tokenizer.json", lambda path: path.write_text("{}"), 2, "the tokenizer (tokenizer.json or tokenizer.model) of 'standin' in"),
        ("config.json", lambda path: path.write_text("{"), 2, "the config of 'standin' in"),
        ("config.json", lambda path: path.write_text("[]"), 2, "the config of 'standin' in"),
        ("config.json", lambda path: path.write_text('{"model_type": "llama", "hidden_size": "x"}'), 2, "expected int, got str"),
        ("model.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-9]), 5, "is damaged or was not copied whole"),
        ("model.safetensors", Path.unlink, 5, "the weights of 'standin' are not in"),
        ("model.safetensors", without_a_tensor, 5, "lack 1 of its tensors, model.layers.0.self_attn.q_proj.weight among them"),
        ("model.safetensors", lambda path: path.rename(path.with_name("pytorch_model.bin")), 5, "the weights of 'standin' in"),
        ("model.safetensors.index.json", lambda path: (path.write_text("[]"), path.with_name("model.safetensors").unlink()), 5, "damaged"),
    ],
)
def test_a_damaged_model_is_one_sentence(file: str, damage: Callable[[Path], Any], exit_code: int, message: str, tmp_path: Path) -> None:
    """What cannot be read ends with its name and its reason: exit 2 for a folder that is no model, 5 for damaged or missing weights."""
    damage(save_standin(tmp_path / "standin") / file)
    asked = ["--model", str(tmp_path / "standin"), "--task", "urn", "--limit", "2", "--store", str(tmp_path / "store")]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == exit_code, result.output
    assert message in result.stderr
    assert len(after_first_line(result.stderr)) == 1


def test_memory_that_runs_out_is_not_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An allocation that fails while weights are read stays what it is, for the backend to say what to do."""
    files = find_model(str(save_standin(tmp_path / "standin")))

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", full)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        load_model(files, "float32", "cpu")


HOSTILE = "from pathlib import Path\nPath({mark!r}).touch()\nclass Any:\n    pass\n"


@pytest.mark.parametrize("what", ["config", "tokenizer"])
@pytest.mark.parametrize("model_type", ["llama", "own"])
def test_python_code_of_a_model_is_never_run(what: str, model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that brings Python code is refused in one sentence, or run as the class that transformers has, whatever stdin answers."""
    folder, mark = save_standin(tmp_path / "standin"), tmp_path / "ran"
    (folder / "hostile.py").write_text(HOSTILE.format(mark=str(mark)))
    name = "config.json" if what == "config" else "tokenizer_config.json"
    changed = json.loads((folder / name).read_text())
    if what == "config":
        changed |= {"model_type": model_type, "auto_map": {"AutoConfig": "hostile.Any", "AutoModelForCausalLM": "hostile.Any"}}
    else:
        tokenizer_class = "Any" if model_type == "own" else "LlamaTokenizer"
        changed |= {"tokenizer_class": tokenizer_class, "auto_map": {"AutoTokenizer": ["hostile.Any", None]}}
    (folder / name).write_text(json.dumps(changed))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["--model", "standin", "--task", "urn", "--limit", "2", "--store", "store"], input="y\ny\ny\n")
    assert not mark.exists()
    assert "custom code" not in done.output
    if model_type == "own" and what == "config":
        assert done.exit_code == 2
        assert "it needs Python code that comes with it, and such code is never run" in done.stderr
        assert len(after_first_line(done.stderr)) == 1


@pytest.mark.parametrize(
    "index",
    [
        {"weight_map": {"a": "../outside.safetensors"}},
        {"weight_map": {"a": "/etc/passwd"}},
        {"weight_map": {"a": "*"}},
        {"weight_map": {"a": 1}},
        {"weight_map": {}},
        {"weight_map": ["a"]},
        "[" * 100_000,
        '{"weight_map": {"a": ' + "9" * 5000 + "}}",
    ],
    ids=lambda index: str(index)[:40],
)
def test_a_hostile_index_of_weights_is_one_sentence(index: Any, tmp_path: Path) -> None:
    """An index that points out of its folder, nests without end or holds no names is refused, and no file outside is looked at."""
    folder = save_standin(tmp_path / "standin")
    save_file(load_file(folder / "model.safetensors"), tmp_path / "outside.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index if isinstance(index, str) else json.dumps(index))
    with pytest.raises(HedgemarkError, match=r"index\.json is damaged: it does not name files of its folder as weights"):
        weights_hash(find_model(str(folder)))


@pytest.mark.parametrize(
    ("name", "asked"), [("owner/m", None), ("owner/m@v1.0", "v1.0"), ("owner/m@0123abc", "0123abc"), ("owner/m@refs/pr/1", "refs/pr/1")]
)
def test_a_hub_model_may_be_asked_for_at_a_revision(name: str, asked: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The revision behind @ is downloaded, and the run key gets the commit that it stands for."""
    calls = []
    (tmp_path / "commit").mkdir()
    (tmp_path / "commit" / "config.json").touch()

    def download(hub_id: str, patterns: list[str], revision: str | None = None) -> Path:
        calls.append((hub_id, revision))
        return tmp_path / "commit"

    monkeypatch.setattr(producer.models.find, "_download", download)
    files = find_model(name)
    assert calls == [("owner/m", asked)]
    assert (files.name, files.hub_id, files.revision) == (name, "owner/m", "commit")


def test_a_misspelt_model_is_told_its_name() -> None:
    """As every other name is."""
    with pytest.raises(UsageError, match=r"unknown model 'ref-moo'; did you mean ref-moe\? known: bayes, ref-s"):
        find_model("ref-moo")


@pytest.mark.parametrize("name", ["./nofolder", "../no/such", "/no/such/model.gguf", "~/no-such-model"])
def test_a_path_that_does_not_exist_is_called_one(name: str) -> None:
    """It is no misspelt name, so that no list of names is of use."""
    with pytest.raises(UsageError, match=rf"^there is no folder or file {re.escape(name)}$"):
        find_model(name)


@pytest.mark.parametrize("name", ["owner/m@", "owner/m:", "owner/name/m@v1", "m@v1"])
def test_a_name_that_is_not_owner_and_name_is_refused(name: str) -> None:
    """An empty revision would be the newest one, and an empty type no file, which were not asked for."""
    with pytest.raises(UsageError, match=r"unknown model .*owner/name@revision"):
        find_model(name)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_a_folder_of_gguf_files_is_not_one_model(count: int, tmp_path: Path) -> None:
    """Each file is a model of its own; which one is meant must be said, whether or not a config.json lies beside them."""
    for number in range(count):
        (tmp_path / f"m-{number}.gguf").touch()
    said = f"it holds {count} GGUF files, m-0.gguf.*; give the path of one"
    with pytest.raises(UsageError, match=said):
        find_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(HedgemarkError, match=said):
        weights_hash(find_model(str(tmp_path)))


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a repository owner/m in a cache of huggingface_hub, which does not reach the Hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "models--owner--m" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder.parents[1] / "refs").mkdir()
    (folder.parents[1] / "refs" / "main").write_text(COMMIT)
    return folder


@pytest.mark.parametrize(
    ("held", "asked", "found"),
    [
        (["m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-Q4_K.gguf", "m-IQ4_K_M.gguf"], "owner/m:Q4_K_M", "m-Q4_K_M.gguf"),
        (["m-Q4_K_M.gguf", "m.Q4_K.gguf"], "owner/m:Q4_K", "m.Q4_K.gguf"),
        (["m-q8_0.gguf"], "owner/m:Q8_0", "m-q8_0.gguf"),
        (["Q8_0/m-Q8_0.gguf", "m-BF16.gguf"], "owner/m:q8_0", "Q8_0/m-Q8_0.gguf"),
        (["m-UD-IQ1_S.gguf"], f"owner/m@{COMMIT}:UD-IQ1_S", "m-UD-IQ1_S.gguf"),
    ],
)
def test_a_gguf_file_on_the_hub_is_found_by_its_type(held: list[str], asked: str, found: str, hub: Path) -> None:
    """Behind a colon stands the type, as llama.cpp takes it; a type that is part of another's name is not meant."""
    for name in held:
        (hub / name).parent.mkdir(exist_ok=True)
        (hub / name).touch()
    files = find_model(asked)
    assert files.folder / files.gguf == hub / found
    assert (files.name, files.hub_id, files.revision) == (asked, "owner/m", COMMIT)
    assert fetch_weights(files) == files


def test_a_repository_without_a_config_is_named(hub: Path) -> None:
    """Most repositories of GGUF files have no config.json; the sentence says how to name one of the files."""
    (hub / "README.md").touch()
    with pytest.raises(UsageError, match=r"owner/m has no config\.json on the Hub; if it holds GGUF files, .* as in owner/m:Q4_K_M"):
        find_model("owner/m")


@pytest.mark.parametrize(
    ("held", "asked", "message"),
    [
        (["m-Q4_K_M.gguf"], "owner/m:Q4_K", "owner/m has no GGUF file whose name ends in Q4_K"),
        (["m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"], "owner/m:Q8_0", "Q8_0 in 2 parts, m-Q8_0-00001-of-00002.gguf first"),
        (["m-Q8_0.gguf", "n-Q8_0.gguf"], "owner/m:Q8_0", "several GGUF files of type Q8_0: m-Q8_0.gguf, n-Q8_0.gguf"),
        (["m-Q8_0.gguf"], "owner/m:*", "'*' in 'owner/m:*' is no type of GGUF files"),
    ],
)
def test_a_type_that_is_not_one_file_is_refused(held: list[str], asked: str, message: str, hub: Path) -> None:
    """None, a divided one and several are one sentence each."""
    for name in held:
        (hub / name).touch()
    with pytest.raises(UsageError, match=re.escape(message)):
        find_model(asked)
