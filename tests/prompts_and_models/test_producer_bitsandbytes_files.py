"""Checkpoints that bitsandbytes stored: read as the library itself reads them, and damaged ones refused."""

import json
from copy import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from producer_tiny import tiny
from safetensors.torch import load_file, save_file

from producer.methods import METHODS
from producer.methods.shared.linear_layers import target_layers
from producer.models.find import ModelFiles
from producer.models.load import load_model
from schemas.errors import HedgemarkError
from schemas.levels import parse_level

pytestmark = pytest.mark.producer
LAYER = "model.layers.0.mlp.up_proj"
KINDS: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "nf4 doubly": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "nf4 in bfloat16": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_quant_storage": "bfloat16"},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "int8": {"load_in_8bit": True},
}


def weight_by_library(layer: Any) -> Any:
    """Return the weight that a layer of the library stands for.

    The library gets a block of weights as a row: on a CPU with AVX-512, 0.50 takes the wrong scales where a block goes over the end of one.
    """
    from bitsandbytes import functional

    if (state := copy(getattr(layer.weight, "quant_state", None))) is not None:
        shape, state.shape = state.shape, torch.Size((state.shape.numel() // state.blocksize, state.blocksize))
        return functional.dequantize_4bit(layer.weight.data, state).float().reshape(shape)
    return layer.weight.data.float() * layer.weight.SCB.float()[:, None] / 127


@pytest.mark.filterwarnings("ignore")  # of transformers and accelerate, whose loading is not what is tested
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_the_library(kind: str, tmp_path: Path) -> None:
    """Quantized and saved by transformers with the library, every layer is read as the library dequantizes it, and the level is named."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (extra [bitsandbytes])")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    tiny().save_pretrained(tmp_path / "plain")
    settings = BitsAndBytesConfig(**KINDS[kind])
    quantized = AutoModelForCausalLM.from_pretrained(
        tmp_path / "plain", quantization_config=settings, device_map="cpu", dtype=torch.float32
    )
    quantized.save_pretrained(tmp_path / "quantized")
    model = load_model(ModelFiles("quantized", tmp_path / "quantized"), "float32", "cpu")
    theirs = target_layers(quantized)
    for name, layer in target_layers(model).items():
        torch.testing.assert_close(layer.weight.float(), weight_by_library(theirs[name]), rtol=1e-6, atol=1e-9)
    level = METHODS["checkpoint"].level_for(model.config, parse_level("-"))
    conditions = METHODS["checkpoint"].apply(model, level, None, 0).conditions
    assert level.text == kind.split(maxsplit=1)[0] and conditions["stored_as"] == "bitsandbytes"
    assert conditions.get("not_simulated", []) == (["rounding of activations"] if kind == "int8" else [])


def stored_by_hand(folder: Path, bits: int) -> Any:
    """Save a tiny model of which one layer is stored as the library does, and return that layer's weight, written out value by value."""
    model, draw = tiny(), torch.Generator().manual_seed(0)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name != f"{LAYER}.weight"}
    rows, columns = 96, 64
    if bits == 8:
        steps, scale = torch.randint(-127, 128, (rows, columns), generator=draw), torch.rand(rows, generator=draw)
        tensors |= {f"{LAYER}.weight": steps.to(torch.int8), f"{LAYER}.SCB": scale, f"{LAYER}.weight_format": torch.tensor(0).byte()}
        weight = torch.tensor([[int(step) * float(scale[row]) / 127 for step in steps[row]] for row in range(rows)])
    else:
        codes, values = torch.randint(0, 16, (rows * columns,), generator=draw), torch.randn(16, generator=draw)
        scales = torch.rand(rows * columns // 32, generator=draw)
        state = {"quant_type": "nf4", "blocksize": 32, "dtype": "float32", "shape": [rows, columns]}
        packed = [16 * int(codes[i]) + int(codes[i + 1]) for i in range(0, len(codes), 2)]
        tensors |= {
            f"{LAYER}.weight": torch.tensor(packed).byte()[:, None],
            f"{LAYER}.weight.absmax": scales,
            f"{LAYER}.weight.quant_map": values,
            f"{LAYER}.weight.quant_state.bitsandbytes__nf4": torch.tensor(list(json.dumps(state).encode())).byte(),
        }
        weight = torch.tensor([float(values[code] * scales[i // 32]) for i, code in enumerate(codes.tolist())]).reshape(rows, columns)
    save_file(tensors, folder / "model.safetensors")
    model.config.quantization_config = {"quant_method": "bitsandbytes", **(KINDS["int8"] if bits == 8 else KINDS["nf4"])}
    model.config.save_pretrained(folder)
    return weight


@pytest.mark.parametrize("bits", [4, 8])
def test_codes_scales_and_steps_mean_what_the_format_says(bits: int, tmp_path: Path) -> None:
    """A layer written out by hand, its neighbours plain; the library is not needed."""
    weight = stored_by_hand(tmp_path, bits)
    model = load_model(ModelFiles("stored", tmp_path), "float32", "cpu")
    torch.testing.assert_close(target_layers(model)[LAYER].weight.data, weight)


def change(folder: Path, part: str, tensor: Any) -> None:
    """Replace a part of the layer in the file, or remove it."""
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(f"{LAYER}.{part}", None)
    save_file(tensors | ({} if tensor is None else {f"{LAYER}.{part}": tensor}), folder / "model.safetensors")


@pytest.mark.parametrize(
    ("bits", "part", "tensor", "message"),
    [
        (4, "weight.absmax", None, r"lacks its codes \(weight\), its values \(quant_map\) or its scales"),
        (4, "weight.absmax", torch.ones(5), "5 scales and 16 values, which do not make a matrix of 96 x 64 in blocks of 32"),
        (4, "weight.quant_map", torch.ones(8), "192 scales and 8 values"),
        (4, "weight", torch.zeros(100, 1).byte(), "has 100 bytes of codes"),
        (4, "weight.absmax", torch.ones(192).byte(), "has scales in 8 bits and lacks what they stand for"),
        (4, "weight.quant_state.bitsandbytes__nf4", torch.tensor(list(b'{"shape": [96, 64]}')).byte(), "does not state its shape"),
        (4, "weight.quant_state.bitsandbytes__nf4", torch.tensor(list(b"[" * 5000)).byte(), "does not state its shape"),
        (4, "weight.extra", torch.ones(1), "has a part that is not known, weight.extra"),
        (4, "weight.quant_state.bitsandbytes__nf4", None, "in 4 bits, and no layer is stored so"),
        (8, "SCB", torch.ones(5), "has 5 row scales"),
        (8, "weight", torch.zeros(96, 64), "no eight-bit weight"),
        (8, "weight_format", torch.tensor(1).byte(), "is laid out for the kernels of one GPU"),
        (8, "SCB", None, "in 8 bits, and no layer is stored so"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(bits: int, part: str, tensor: Any, message: str, tmp_path: Path) -> None:
    """Missing, left over, of another size or kind: the sentence names the layer."""
    stored_by_hand(tmp_path, bits)
    change(tmp_path, part, tensor)
    with pytest.raises(HedgemarkError, match=message):
        load_model(ModelFiles("stored", tmp_path), "float32", "cpu")


def test_another_type_than_the_config_says_is_refused(tmp_path: Path) -> None:
    """A config that says fp4 beside weights stored as nf4."""
    stored_by_hand(tmp_path, 4)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["bnb_4bit_quant_type"] = "fp4"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(HedgemarkError, match=r"up_proj does not state its shape .* or is of another type than its config says"):
        load_model(ModelFiles("stored", tmp_path), "float32", "cpu")
