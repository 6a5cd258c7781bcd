"""HQQ checkpoints: read bit by bit as the library itself dequantizes them, and damaged ones refused."""

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
LAYER = "model.layers.0.mlp.up_proj"
ROWS, COLUMNS, GROUP = 96, 64, 16
PER_WORD = {8: 1, 4: 2, 3: 10, 2: 4, 1: 8}


def config_of(bits: int, axis: int, **more: Any) -> dict[str, Any]:
    params = {"nbits": bits, "channel_wise": True, "group_size": GROUP, "optimize": True, "round_zero": bits == 4, "axis": axis}
    settings = {"weight_quant_params": params | {"view_as_float": False}, "scale_quant_params": None, "zero_quant_params": None}
    return {"quant_method": "hqq", "quant_config": settings, "skip_modules": ["lm_head"], **more}


def text(value: str) -> Any:
    return torch.tensor(list(value.encode()), dtype=torch.uint8)


def stored_by_hand(folder: Path, bits: int, axis: int) -> Any:
    """Save a tiny model of which one layer is stored as HQQ does, and return that layer's weight, written out number by number."""
    model, draw = tiny(), torch.Generator().manual_seed(0)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name != f"{LAYER}.weight"}
    n_groups = ROWS * COLUMNS // GROUP
    rows, columns = (n_groups, GROUP) if axis == 1 else (GROUP, n_groups)
    integers = torch.randint(0, 2**bits, (rows, columns), generator=draw)
    scale, zero = torch.rand(n_groups, generator=draw).half(), (torch.rand(n_groups, generator=draw) * 2**bits).half()
    per_word, width = PER_WORD[bits], 32 if bits == 3 else 8
    blocks = -(-rows // per_word)
    words = torch.zeros(blocks, columns, dtype=torch.int32 if width == 32 else torch.uint8)
    for row in range(rows):  # row 0 of every block lies in a word's highest bits of those that are used
        shift = bits * (per_word - 1 - row // blocks)
        words[row % blocks] |= (integers[row] << shift).to(words.dtype)
    name = {8: "8bit_u8", 4: "4bit_u8", 3: "3bit_32", 2: "2bit_u8", 1: "1bit_u8"}[bits]
    own = {"nbits": bits, "group_size": GROUP, "axis": axis}
    tensors |= {f"{LAYER}.{part}": torch.tensor(value, dtype=torch.int32) for part, value in own.items()}
    tensors |= {f"{LAYER}.{part}": torch.tensor(0).byte() for part in ("view_as_float", "quant_scale", "quant_zero", "offload_meta")}
    tensors |= {f"{LAYER}.{part}": torch.tensor(1).byte() for part in ("encoded_state_dict", "stores_quant_config", "channel_wise")}
    shape = (n_groups, 1) if axis == 1 else (1, n_groups)
    tensors |= {
        f"{LAYER}.W_q": words,
        f"{LAYER}.scale": scale.reshape(shape),
        f"{LAYER}.zero": zero.reshape(shape),
        f"{LAYER}.shape": torch.tensor([ROWS, COLUMNS]),
        f"{LAYER}.packing": text(name),
        f"{LAYER}.compute_dtype": text("torch.float16"),
    }
    save_file(tensors, folder / "model.safetensors")
    model.config.quantization_config = config_of(bits, axis)
    model.config.save_pretrained(folder)
    weight = torch.zeros(rows, columns)
    for row in range(rows):
        for column in range(columns):
            group = row if axis == 1 else column
            weight[row, column] = (float(integers[row, column]) - float(zero[group])) * float(scale[group])
    return weight.reshape(ROWS, COLUMNS)


def load(folder: Path) -> Any:
    return load_model(find_model(str(folder)), "float32", "cpu")


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_words_scales_and_zero_points_mean_what_the_format_says(bits: int, axis: int, tmp_path: Path) -> None:
    """A layer written out by hand in every packing, groups along rows or columns, its neighbours plain; the library is not needed."""
    weight = stored_by_hand(tmp_path, bits, axis)
    model = load(tmp_path)
    torch.testing.assert_close(target_layers(model)[LAYER].weight.data, weight, rtol=1e-6, atol=1e-6)
    level = METHODS["checkpoint"].level_for(model.config, parse_level("-"))
    conditions = METHODS["checkpoint"].apply(model, level, None, 0).conditions
    assert (level.text, conditions["stored_as"]) == ("1bit-g16" if bits == 1 else f"w{bits}a16-g16", "hqq")


@pytest.mark.filterwarnings("ignore")  # of the library's import
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 8])
def test_weights_are_those_of_the_library(bits: int, axis: int, tmp_path: Path) -> None:
    """Quantized and written by the library itself, with scales in float32: every weight, bit by bit, as its own layer dequantizes it."""
    pytest.importorskip("hqq", reason="hqq is not installed (extra [hqq])")
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    model = tiny()
    tensors = {name: tensor for name, tensor in model.state_dict().items() if "_proj." not in name}
    for name, layer in target_layers(model).items():
        settings = BaseQuantizeConfig(nbits=bits, group_size=GROUP, axis=axis)
        theirs = HQQLinear(layer, settings, compute_dtype=torch.float32, device="cpu", del_orig=False)
        tensors |= {f"{name}.{part}": value.contiguous() for part, value in theirs.state_dict().items()}
        layer.weight.data = theirs.dequantize()
    save_file(tensors, tmp_path / "model.safetensors")
    model.config.quantization_config = config_of(bits, axis)
    model.config.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


def change(folder: Path, part: str, tensor: Any) -> None:
    """Replace a part of the layer in the file, or remove it."""
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(f"{LAYER}.{part}", None)
    save_file(tensors | ({} if tensor is None else {f"{LAYER}.{part}": tensor}), folder / "model.safetensors")


@pytest.mark.parametrize(
    ("bits", "part", "tensor", "message"),
    [
        (4, "scale", None, "has packed integers (W_q) and lacks scale"),
        (4, "zero", None, "has packed integers (W_q) and lacks zero"),
        (4, "nbits", torch.tensor(2).int(), "states nbits [2], and the quantization settings say 4"),
        (4, "group_size", torch.tensor(32).int(), "states group_size [32], and the quantization settings say 16"),
        (4, "axis", torch.tensor(0).int(), "states axis [0], and the quantization settings say 1"),
        (4, "packing", text("8bit_u8"), "packed as '8bit_u8', which do not agree"),
        (4, "shape", torch.tensor([95, 65]), "states a weight of (95, 65) in groups of 16"),
        (4, "shape", torch.tensor([96, 128]), "has words (W_q) (192, 16) torch.uint8, not those of 768 x 16 integers"),
        (4, "W_q", torch.zeros(192, 16), "has words (W_q) (192, 16) torch.float32"),
        (4, "scale", torch.ones(384), "has scale (384,) torch.float32, not one number for each of 384 groups"),
        (4, "zero", torch.ones(384, 1).byte(), "has zero (384, 1) torch.uint8"),
        (4, "quant_scale", torch.tensor(1).byte(), "is stored with quant_scale, which cannot be dequantized"),
        (4, "view_as_float", torch.tensor(1).byte(), "is stored with view_as_float"),
        (4, "weight", torch.zeros(96, 64), "and plain weights as well"),
        (4, "scale_q", torch.ones(1), "have 1 tensors that a model of its config has no use for"),
        (4, "W_q", None, "no layer is packed (W_q); its weights are plain"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(bits: int, part: str, tensor: Any, message: str, tmp_path: Path) -> None:
    """Missing, left over, of another size or kind, or other than the settings say: the sentence names the layer."""
    stored_by_hand(tmp_path, bits, 1)
    change(tmp_path, part, tensor)
    with pytest.raises(HedgemarkError, match=re.escape(message)):
        load(tmp_path)


def test_integers_beyond_their_bits_are_refused(tmp_path: Path) -> None:
    """Five bits are stored in bytes, which could hold more."""
    stored_by_hand(tmp_path, 8, 1)
    change(tmp_path, "nbits", torch.tensor(5).int())
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = config_of(5, 1)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(HedgemarkError, match=f"layer {LAYER} holds integers of more than 5 bits"):
        load(tmp_path)


def test_layers_may_differ_by_their_kind(tmp_path: Path) -> None:
    """Settings by kind of layer are those of its layers; a packed layer of a kind that is not named, or skipped, is refused."""
    weight = stored_by_hand(tmp_path, 4, 1)
    config = json.loads((tmp_path / "config.json").read_text())
    settings = config["quantization_config"]
    one = settings["quant_config"]

    def written(**changed: Any) -> None:
        config["quantization_config"] = settings | changed
        (tmp_path / "config.json").write_text(json.dumps(config))

    written(quant_config={"mlp.up_proj": one})
    assert float((target_layers(load(tmp_path))[LAYER].weight - weight).detach().abs().max()) < 1e-5
    written(quant_config={"mlp.up_proj": one, "mlp.down_proj": config_of(2, 1)["quant_config"]})
    assert stored_level(load_config(find_model(str(tmp_path)))) == "mixed"
    for changed in ({"quant_config": {"mlp.down_proj": one}}, {"skip_modules": ["up_proj"]}):
        written(**changed)
        with pytest.raises(HedgemarkError, match=f"layer {LAYER} is packed, and the quantization settings leave it out"):
            load(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"nbits": 7}, "7 bits in groups of 16 along axis 1"),
        ({"nbits": 1.58}, "1.58 bits"),
        ({"group_size": None}, "in groups of None"),
        ({"axis": 2}, "along axis 2"),
        ({"again": True}, "state no weight_quant_params"),
    ],
)
def test_settings_that_are_not_known_are_refused(changed: dict[str, Any], message: str) -> None:
    """Other bits, no groups, another axis, scales that are quantized again: before weights are read."""
    config, settings = tiny().config, config_of(4, 1)
    if changed.pop("again", False):
        settings["quant_config"]["scale_quant_params"] = {"nbits": 8}
    settings["quant_config"]["weight_quant_params"] |= changed
    config.quantization_config = settings
    with pytest.raises(UsageError, match=re.escape(message)):
        check_stored(config)
