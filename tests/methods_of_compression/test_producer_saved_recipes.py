"""A saved recipe is one checkpoint with a config group for every level: read again it is the model that was measured, also by others."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from producer.cli.main import main
from producer.methods import METHODS
from producer.methods.shared.linear_layers import target_layers
from producer.models.find import find_model
from producer.models.load import load_model
from producer.saved.packing import packed_tensors, packing_of
from store import open_reader

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.producer

EXPERTS = {"experts": "nvfp4", "attention": "w8a8-fp8"}
PATTERNS = {"self_attn.[qkv]_proj": "w8a8-fp8-static", "mlp.*_proj": "w3a16-g32"}  # output projections stay as they are
DOWN = {"mlp.experts.*.down_proj": "nvfp4"}
ONE_GROUP = {"mlp.down_proj": "mxfp4"}


def written(folder: Path, layers: dict[str, str], method: str = "rtn") -> str:
    """Write a recipe, and return its path."""
    text = f'name = "of-its-own"\nmethod = "{method}"\n'
    text += "".join(f'[[layers]]\nmatch = "{match}"\nlevel = "{level}"\n' for match, level in layers.items())
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def run(store: Path, *words: str) -> Any:
    """Run `produce` on a few urns, and return the store's only run."""
    asked = ["--store", str(store), "--task", "urn", "--limit", "20", "--compression-data", "embedded:8x64", *words]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 0, result.output
    reader = open_reader(str(store))
    (name,) = reader.catalog["name"]
    return reader.run(name)


def check_round_trip(model: str, recipe: str, folder: Path) -> dict[str, Any]:
    """Save a recipe's model, run the checkpoint as somebody else's, and return its record: the option logits are 0.0 apart."""
    made = run(folder / "made", "--model", model, "--recipe", recipe, "--save", str(folder / "saved"))
    read = run(folder / "read", "--model", str(folder / "saved"), "--method", "checkpoint")
    assert np.array_equal(made.logits, read.logits, equal_nan=True)
    record = json.loads((folder / "saved" / "hedgemark.json").read_text(encoding="utf-8"))
    assert record["loaded_again"]["largest_logit_change"] == 0 and record["loaded_again"]["largest_weight_change_in_roundings"] == 0
    assert made.key.level == "of-its-own" and read.env.post_conditions["stored_as"] == "compressed-tensors"
    return dict(record)


def test_patterns_of_names_come_back(tmp_path: Path) -> None:
    """On ref-s static FP8, 3 bits and layers that stay: the same logits, two groups in the config, and a card that names them all."""
    record = check_round_trip("ref-s", written(tmp_path, PATTERNS), tmp_path)
    assert [(each["level"], each["format"], each["matrices"]) for each in record["groups"]] == [
        ("w8a8-fp8-static", "float-quantized", 12), ("w3a16-g32", "pack-quantized", 12),
    ]  # fmt: skip
    assert (record["format"], record["left_as_they_are"]) == ("mixed-precision", ["self_attn.o_proj"])
    settings = json.loads((tmp_path / "saved" / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    assert settings["format"] == "mixed-precision" and list(settings["config_groups"]) == ["group_0", "group_1"]
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert "| `self_attn.q_proj`, `self_attn.k_proj`, `self_attn.v_proj` | w8a8-fp8-static | float-quantized | 12 |" in card
    assert "| `mlp.gate_proj`, `mlp.up_proj`, `mlp.down_proj` | w3a16-g32 | pack-quantized | 12 |" in card
    assert "| `self_attn.o_proj` | as they were | plain weights | - |" in card


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_experts_and_attention_come_back(method: str, tmp_path: Path) -> None:
    """On ref-moe experts in NVFP4 beside attention in FP8, whose inputs are rounded with scales of both kinds: the same logits."""
    record = check_round_trip("ref-moe", written(tmp_path, EXPERTS, method), tmp_path)
    assert {each["level"]: each["format"] for each in record["groups"]} == {"nvfp4": "nvfp4-pack-quantized", "w8a8-fp8": "float-quantized"}
    assert record["left_as_they_are"] == []


@pytest.mark.slow
def test_a_recipe_for_one_kind_of_layer_comes_back(tmp_path: Path) -> None:
    """One group that finds its layers by name; the others are plain."""
    record = check_round_trip("ref-s", written(tmp_path, ONE_GROUP), tmp_path)
    assert record["format"] == record["groups"][0]["format"] == "mxfp4-pack-quantized" and len(record["left_as_they_are"]) == 6


@pytest.mark.slow
def test_a_kept_recipe_is_loaded_and_not_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With `--models` another prompt costs a load; its run is the one that compressing again would have made."""
    words = ("--model", "ref-s", "--recipe", written(tmp_path, PATTERNS))
    kept = ("--models", str(tmp_path / "kept"))
    run(tmp_path / "first", *words, *kept)
    again, fresh = run(tmp_path / "again", *words, *kept, "--prompt", "shared"), run(tmp_path / "fresh", *words, "--prompt", "shared")
    assert "is loaded from" in caplog.text
    assert again.key == fresh.key and np.array_equal(again.logits, fresh.logits, equal_nan=True)


@pytest.mark.parametrize(("model", "layers"), [("qwen3_moe", EXPERTS), ("llama", PATTERNS), ("qwen3_moe", DOWN)])
def test_each_layer_is_found_by_its_own_group(model: str, layers: dict[str, str], tmp_path: Path) -> None:
    """As compressed-tensors matches names: one group for a quantized layer, none for another, and it unpacks the weight in memory."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.utils import is_match
    from producer_tiny import tiny, tiny_data

    method = METHODS["recipe"].with_chosen({"recipe": written(tmp_path, layers)})
    applied = method.apply(tiny(model), method.level_for(None, _level("of-its-own")), tiny_data(), 0)
    packing = packing_of(applied.model, _level("of-its-own"), applied.settings["recipe"])
    tensors, settings = packed_tensors(applied.model, packing), packing.settings()
    for name, module in applied.model.named_modules():
        if not isinstance(module, torch.nn.Linear):
            continue
        found = [at for at, each in settings["config_groups"].items() if is_match(name, module, each["targets"], settings["ignore"])]
        mine = [f"group_{number}" for number, group in enumerate(packing.groups) if name in group.layers]
        assert found == mine, name
        if mine:
            scheme = packing.groups[int(mine[0][-1])].scheme
            parts = {full.rpartition(".")[2]: value for full, value in tensors.items() if full.startswith(f"{name}.")}
            theirs = BaseCompressor.get_value_from_registry(scheme.format).decompress(parts, scheme)["weight"]
            coarse = torch.bfloat16 if scheme.format == "nvfp4-pack-quantized" else theirs.dtype  # where the library's own products are
            assert torch.equal(theirs.to(coarse).float(), module.weight.to(coarse).float()), name


@pytest.mark.slow
def test_transformers_reads_the_same_weights(tmp_path: Path) -> None:
    """The library's own reader gives the weights that ours gives, bit by bit."""
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    run(tmp_path / "made", "--model", "ref-s", "--recipe", written(tmp_path, PATTERNS), "--save", str(tmp_path / "saved"))
    unpacked = CompressedTensorsConfig(dequantize=True)
    with pytest.warns(UserWarning, match="loading attributes"):  # that this one setting is taken, and the others are the checkpoint's
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32, quantization_config=unpacked)
    ours = load_model(find_model(str(tmp_path / "saved")), "float32", "cpu")
    layers = target_layers(theirs)
    for name, layer in target_layers(ours).items():
        assert torch.equal(layer.weight, layers[name].weight.float()), name


def _level(text: str) -> Any:
    from schemas.levels import parse_level

    return parse_level(text)
