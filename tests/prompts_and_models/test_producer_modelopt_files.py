"""NVFP4 checkpoints of NVIDIA ModelOpt: weights and rounded inputs written out by hand, and damaged ones refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from producer_tiny import tiny
from safetensors.torch import load_file, save_file

from producer.methods import METHODS
from producer.methods.shared.linear_layers import target_layers
from producer.models.find import find_model
from producer.models.load import load_config, load_model
from producer.models.packed import check_stored
from producer.models.stored_as import stored_level
from schemas.errors import HedgemarkError, UsageError
from schemas.levels import parse_level

pytestmark = pytest.mark.producer
FIRST, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
ALL = torch.tensor([*VALUES, *(-value for value in VALUES)])
# As ModelOpt 0.47 writes them into config.json, and into hf_quant_config.json beside it.
GROUP = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}
CONFIG = {
    "quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head", "model.embed_tokens"],
    "config_groups": {"group_0": {"input_activations": GROUP, "weights": GROUP, "targets": ["Linear"]}},
    "producer": {"name": "modelopt", "version": "0.47.0"},
}  # fmt: skip
FILE = {"quant_algo": "NVFP4", "kv_cache_quant_algo": None, "group_size": 16, "exclude_modules": ["lm_head", "model.embed_tokens"]}


def stored(folder: Path, settings: dict[str, Any], *, kept: str = "\0", in_file: bool = False) -> Any:
    """Save a tiny model as ModelOpt exports NVFP4, and return the model that it stands for; layers named by `kept` stay plain."""
    model, draw = tiny(), torch.Generator().manual_seed(0)
    tensors = {name: weight for name, weight in model.state_dict().items() if "_proj." not in name}
    for name, layer in target_layers(model).items():
        if kept in name:
            tensors[f"{name}.weight"] = layer.weight.data
            continue
        rows, columns = layer.weight.shape
        codes = torch.randint(0, 16, (rows, columns), generator=draw)
        scales = (torch.rand(rows, columns // 16, generator=draw) * 400 + 1).to(torch.float8_e4m3fn)
        layer.weight.data = ALL[codes] * (scales.float() * 2**-11).repeat_interleave(16, 1)
        tensors |= {
            f"{name}.weight": (codes[:, ::2] | codes[:, 1::2] << 4).to(torch.uint8),
            f"{name}.weight_scale": scales,
            f"{name}.weight_scale_2": torch.tensor(2.0**-11),
            f"{name}.input_scale": torch.tensor(2.0**-9),
        }
    save_file(tensors, folder / "model.safetensors")
    if not in_file:
        model.config.quantization_config = settings
    model.config.save_pretrained(folder)
    if in_file:
        (folder / "hf_quant_config.json").write_text(json.dumps({"producer": {"name": "modelopt"}, "quantization": settings}))
    return model


def load(folder: Path) -> Any:
    return load_model(find_model(str(folder)), "float32", "cpu")


@pytest.mark.parametrize("in_file", [False, True])
def test_weights_are_values_times_both_scales(in_file: bool, tmp_path: Path) -> None:
    """Settings in config.json or beside it; factors that are powers of two leave nothing to round, so all weights are equal bit by bit."""
    meant = stored(tmp_path, FILE if in_file else CONFIG, in_file=in_file)
    model = load(tmp_path)
    for name, weight in meant.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    conditions = METHODS["checkpoint"].apply(model, parse_level(stored_level(model.config)), None, 0).conditions
    assert (stored_level(model.config), conditions["stored_as"], conditions.get("not_simulated")) == ("NVFP4", "modelopt", None)


def test_inputs_are_rounded_with_the_stored_scale(tmp_path: Path) -> None:
    """Groups of 16 get a float8 scale for their largest value over 6, in units of the stored factor; values go to the nearest of NVFP4."""
    stored(tmp_path, CONFIG)
    layer = load(tmp_path).get_submodule(FIRST)
    x = torch.randn(1, 3, 64, generator=torch.Generator().manual_seed(1))
    groups = x.reshape(3, 4, 16).double()
    scales = (groups.abs().amax(-1, keepdim=True) / 6 / 2.0**-9).to(torch.float8_e4m3fn).double() * 2.0**-9
    nearest = (groups[..., None] / scales[..., None] - ALL.double()).abs().argmin(-1)
    rounded = (ALL.double()[nearest] * scales).reshape(1, 3, 64).float()
    expected = rounded @ layer.weight.T
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(x @ layer.weight.T, expected, rtol=1e-2)


@pytest.mark.parametrize("excluded", ["model.layers.*.self_attn*", "*self_attn*", "model.layers.?.self_attn"])
def test_excluded_modules_are_plain(excluded: str, tmp_path: Path) -> None:
    """Patterns of modules, or the name of a module that stands for all below it."""
    meant = stored(tmp_path, CONFIG | {"ignore": ["lm_head", excluded]}, kept="self_attn")
    model = load(tmp_path)
    for name, weight in meant.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    assert not model.get_submodule(FIRST)._forward_pre_hooks
    assert model.get_submodule(DOWN)._forward_pre_hooks


@pytest.mark.parametrize("stated", [True, False])
def test_a_rounded_cache_is_named(stated: bool, tmp_path: Path) -> None:
    """Servers round keys and values with scales that they find, whether the config says so or not."""
    scheme = {"kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"}} if stated else {}
    stored(tmp_path, CONFIG | scheme)
    change(tmp_path, "k_scale", torch.tensor(0.5))
    conditions = METHODS["checkpoint"].apply(load(tmp_path), parse_level("NVFP4"), None, 0).conditions
    assert conditions["not_simulated"] == ["rounding of the key/value cache"]


def change(folder: Path, part: str, tensor: Any) -> None:
    """Replace a part of the first layer in the file, or remove it."""
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(f"{FIRST}.{part}", None)
    save_file(tensors | ({} if tensor is None else {f"{FIRST}.{part}": tensor}), folder / "model.safetensors")


@pytest.mark.parametrize(
    ("part", "tensor", "message"),
    [
        ("input_scale", None, f"layer {FIRST} should have one positive input_scale, and the files hold none"),
        ("weight_scale_2", None, f"layer {FIRST} should have one positive weight_scale_2, and the files hold none"),
        ("weight_scale_2", torch.tensor(0.0), "should have one positive weight_scale_2"),
        ("input_scale", torch.ones(2), "should have one positive input_scale, and the files hold (2,) torch.float32"),
        ("weight_scale", torch.ones(64, 3).to(torch.float8_e4m3fn), "cannot be read"),
        ("weight", torch.zeros(64, 16).byte(), "cannot be read"),
        ("pre_quant_scale", torch.ones(64), f"no use for, {FIRST}.pre_quant_scale among them"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(part: str, tensor: Any, message: str, tmp_path: Path) -> None:
    """Missing, left over, of another size or kind."""
    stored(tmp_path, CONFIG)
    change(tmp_path, part, tensor)
    with pytest.raises(HedgemarkError, match=re.escape(message)):
        load(tmp_path)


@pytest.mark.parametrize(
    ("kept", "excluded", "message"),
    [
        ("self_attn", "lm_head", "is stored without the scales that its quantization_config announces"),
        ("\0", "*self_attn*", "is stored with scales, and no group of its quantization_config is meant for it"),
    ],
)
def test_exclusions_that_the_files_contradict_are_refused(kept: str, excluded: str, message: str, tmp_path: Path) -> None:
    """A plain layer that is not excluded, and a packed one that is."""
    stored(tmp_path, CONFIG | {"ignore": ["lm_head", excluded]}, kept=kept)
    with pytest.raises(HedgemarkError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    "changed", [{"group_size": 32}, {"config_groups": {"group_0": {"weights": GROUP}}}, {"quant_algo": "W4A8_NVFP4_FP8"}]
)
def test_other_forms_are_refused(changed: dict[str, Any]) -> None:
    """Groups of another size, inputs that are not rounded, another algorithm: before weights are read."""
    config = tiny().config
    config.quantization_config = CONFIG | changed
    with pytest.raises(UsageError, match=r"a modelopt checkpoint of algorithm '.*NVFP4.*' cannot be dequantized here"):
        check_stored(config)


def test_algorithms_may_be_written_in_small_letters(tmp_path: Path) -> None:
    """ModelOpt writes fp8_pb_wo so, and its weights are used without rounded inputs."""
    config = tiny().config
    config.quantization_config = {"quant_method": "modelopt", "quant_algo": "fp8_pb_wo"}
    check_stored(config)
    assert stored_level(config) == "FP8_PB_WO"
    config.save_pretrained(tmp_path)
    assert stored_level(load_config(find_model(str(tmp_path)))) == "FP8_PB_WO"
