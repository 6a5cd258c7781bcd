"""Recipes: each layer at its own level, checked, counted and recorded; what does not fit is refused before weights are loaded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from producer_tiny import tiny, tiny_data

from producer.cli.main import main
from producer.methods import METHODS
from producer.methods.shared.contract import Job
from producer.methods.shared.linear_layers import target_layers
from producer.methods.shared.make_linear import make_linear
from producer.methods.shared.recipe_file import levels_by_kind, read_recipe
from schemas.errors import PostConditionError, UsageError
from schemas.levels import Level, parse_level
from store import open_reader

pytestmark = pytest.mark.producer
MIXED = """
name = "experts-nvfp4"
method = "{method}"
[[layers]]
match = "experts"
level = "nvfp4"
[[layers]]
match = "self_attn.[qk]_proj"
level = "w8a8-fp8"
[[layers]]
match = "self_attn.v_proj"
level = "W4A16-g32"
"""
LEVEL = parse_level("experts-nvfp4")


def written(folder: Path, text: str = MIXED, **values: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text.format(**({"method": "rtn"} | values)))
    return path


def mixed(folder: Path, method: str = "rtn") -> Any:
    return METHODS["recipe"].with_chosen({"recipe": str(written(folder, method=method))})


def level_of(name: str) -> str:
    """Return the level that the recipe above has for a layer, by its name alone."""
    if ".experts." in name:
        return "nvfp4"
    return {"q_proj": "w8a8-fp8", "k_proj": "w8a8-fp8", "v_proj": "w4a16-g32"}.get(name.rpartition(".")[2], "")


@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_each_layer_is_what_its_level_alone_makes(method: str, tmp_path: Path) -> None:
    """With rtn, each weight is bit by bit that of a model at the layer's level; a layer without an entry is the dense one.

    The scale of a tensor in NVFP4 is shared by layers that read the same input, all of which are experts here. gptq sees inputs of layers
    that were quantized otherwise, so its weights are only on their grids, which the check behind it says.
    """
    data, dense = tiny_data(), target_layers(make_linear(tiny("qwen3_moe")))
    applied = mixed(tmp_path, method).apply(tiny("qwen3_moe"), LEVEL, data, 0)
    layers = target_layers(applied.model)
    assert {level_of(name) for name in layers} == {"nvfp4", "w8a8-fp8", "w4a16-g32", ""}
    alone = {
        text: target_layers(METHODS["rtn"].apply(tiny("qwen3_moe"), parse_level(text), data, 0).model)
        for text in ("nvfp4", "w8a8-fp8", "w4a16-g32")
    }
    for name, layer in layers.items():
        text = level_of(name)
        if not text:
            assert torch.equal(layer.weight, dense[name].weight) and not layer._forward_pre_hooks
        else:
            assert bool(layer._forward_pre_hooks) == (text != "w4a16-g32")
            assert torch.equal(layer.weight, alone[text][name].weight) == (method == "rtn"), name


def test_bits_and_bytes_are_those_of_the_mixture(tmp_path: Path) -> None:
    """Counted by hand: 4 bits and an 8-bit scale per 16 for experts, 8 bits and a 16-bit scale per row for queries, 16 for what is left."""
    conditions = mixed(tmp_path).apply(tiny("qwen3_moe"), LEVEL, tiny_data(), 0).conditions
    layers = target_layers(make_linear(tiny("qwen3_moe")))
    bits, weights = 0.0, 0
    for name, layer in layers.items():
        rows, size, text = len(layer.weight), layer.weight.numel(), level_of(name)
        bits += {
            "nvfp4": size * 4 + size / 16 * 8 + 32,
            "w8a8-fp8": size * 8 + rows * 16,
            "w4a16-g32": size * 4 + size / 32 * (16 + 4),
            "": size * 16,
        }[text]
        weights += size * bool(text)
    total = sum(layer.weight.numel() for layer in layers.values())
    others = sum(parameter.numel() for parameter in make_linear(tiny("qwen3_moe")).parameters()) - total
    assert conditions["bits_per_weight"] == pytest.approx(bits / total, rel=1e-12)
    assert conditions["bytes"] == int(bits / 8 + others * 2)
    assert conditions["quantized_weights"] == weights
    assert conditions["weights_share_quantized"] == pytest.approx(weights / total)
    assert {text: found["matrices"] for text, found in conditions["by_level"].items()} == {"nvfp4": 36, "w8a8-fp8": 6, "w4a16-g32": 3}


@pytest.mark.parametrize("place", ["experts.1.down_proj", "q_proj", "v_proj", "o_proj"])
def test_a_matrix_off_its_own_level_is_found(place: str, tmp_path: Path) -> None:
    """A weight off the grid of its layer, and a layer that is quantized although the recipe leaves it out, violate the post-condition."""
    method = mixed(tmp_path)
    applied = method.apply(tiny("qwen3_moe"), LEVEL, tiny_data(), 0)
    job = Job(LEVEL, applied.settings, None, 0)
    method.verify(applied.model, job)
    layer = next(layer for name, layer in target_layers(applied.model).items() if name.endswith(place))
    if place == "o_proj":
        layer.register_buffer("weight_scale", torch.ones(1))
    else:
        layer.weight.data[0, 0] = layer.weight.abs().max() * 0.7131
    with pytest.raises(PostConditionError, match=place.replace(".", r"\.")):
        method.verify(applied.model, job)


def test_the_first_entry_counts(tmp_path: Path) -> None:
    """A later entry has only the layers that no earlier one matches, and names are compared whole."""
    layers = [("mlp.up_proj", "w8a16"), ("feed-forward", "w4a16"), ("*_proj", "w2a16")]
    text = 'name = "x"\n' + "".join(f'[[layers]]\nmatch = "{match}"\nlevel = "{level}"\n' for match, level in layers)
    chosen = levels_by_kind(read_recipe(str(written(tmp_path, text))), ["mlp.up_proj", "mlp.down_proj", "self_attn.q_proj", "mlp.gate"])
    assert {kind: level.text for kind, level in chosen.items()} == {
        "mlp.up_proj": "w8a16", "mlp.down_proj": "w4a16", "self_attn.q_proj": "w2a16", "mlp.gate": "w4a16",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"\n', "layers"),
        ('name = "x"\nlayers = []\n', "layers"),
        ('name = "nvfp4"\n[[layers]]\nmatch = "*"\nlevel = "nvfp4"', "a recipe has a name of its own"),
        ('name = "w4a16"\n[[layers]]\nmatch = "*"\nlevel = "nvfp4"', "a recipe has a name of its own"),
        ('name = "0.5"\n[[layers]]\nmatch = "*"\nlevel = "nvfp4"', "a recipe has a name of its own"),
        ('name = "x"\n[[layers]]\nmatch = "*"\nlevel = "0.5"', "no level of rtn and gptq"),
        ('name = "x"\n[[layers]]\nmatch = "*"\nlevel = "w8a8"', "no level of rtn and gptq"),
        ('name = "x"\n[[layers]]\nmatch = ""\nlevel = "nvfp4"', "match"),
        ('name = "x"\nmethod = "awq"\n[[layers]]\nmatch = "*"\nlevel = "nvfp4"', "method"),
        ('name = "x"\nkept = 1\n[[layers]]\nmatch = "*"\nlevel = "nvfp4"', "unknown key 'kept'"),
        ('name = "x"', "layers"),
        ("name = x", "cannot read recipe"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(text: str, message: str, tmp_path: Path) -> None:
    """One sentence names what is wrong."""
    with pytest.raises(UsageError, match=message):
        read_recipe(str(written(tmp_path, text)))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([("experts", "nvfp4")], "'experts' of the recipe matches none of its layers: self_attn.q_proj"),
        ([("self_attn.q", "nvfp4")], "'self_attn.q' of the recipe matches none"),
        ([("attention", "w4a16-g32"), ("mlp.down_proj", "w4a16-g64")], "groups of 64 do not divide the 96 columns of mlp.down_proj"),
        ([("mlp.up_proj", "nvfp4")], "mlp.up_proj at level 'nvfp4' shares a scale with mlp.gate_proj, so the recipe must give"),
        ([("self_attn.q_proj", "w8a8-fp8"), ("self_attn.[kv]_proj", "nvfp4a16")], "k_proj at level 'nvfp4a16' shares a scale with self"),
    ],
)
def test_a_model_that_the_recipe_does_not_fit_is_refused(layers: list[tuple[str, str]], message: str, tmp_path: Path) -> None:
    """From the config alone."""
    text = 'name = "x"\n' + "".join(f'[[layers]]\nmatch = "{match}"\nlevel = "{level}"\n' for match, level in layers)
    method = METHODS["recipe"].with_chosen({"recipe": str(written(tmp_path, text))})
    with pytest.raises(UsageError, match=message.replace(".", r"\.")):
        method.check_config(tiny().config, parse_level("x"))


def test_a_level_that_is_not_the_recipes_name_is_refused(tmp_path: Path) -> None:
    """A run's level says which recipe it is."""
    with pytest.raises(UsageError, match="the recipe is called 'experts-nvfp4'"):
        mixed(tmp_path).check_config(tiny("qwen3_moe").config, parse_level("other"))
    assert isinstance(LEVEL, Level)


def test_the_command_takes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--recipe` on ref-moe beside its dense model: the level is the recipe's name, and the key has its content."""
    monkeypatch.setenv("HEDGEMARK_CACHE", str(tmp_path / "cache"))
    store, path = str(tmp_path / "store"), written(tmp_path)
    asked = ["--model", "ref-moe", "--task", "urn", "--limit", "20", "--store", store, "--compression-data", "embedded:8x64"]
    result = CliRunner().invoke(main, [*asked, "--method", "dense", "--recipe", str(path)])
    assert result.exit_code == 0, result.output
    reader = open_reader(store)
    [run] = [run for run in map(reader.run, reader.catalog["name"]) if run.key.method == "recipe"]
    assert run.key.level == "experts-nvfp4"
    recorded = json.loads(json.dumps(run.key.model_dump(mode="json")["method_settings"]["recipe"]))
    assert recorded == read_recipe(str(path))
    again = CliRunner().invoke(main, [*asked, "--recipe", str(path)])
    assert "0 runs written, 1 already stored" in again.stderr, again.output
    absent = CliRunner().invoke(main, [*asked, "--recipe", str(tmp_path / "absent.toml")])
    assert absent.exit_code != 0 and "absent.toml" in absent.stderr
