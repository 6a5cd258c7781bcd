"""AutoRound checkpoints: what its own packers write is what is read, exceptions hold for their layers, damaged ones are refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from producer_packed import into_words
from producer_tiny import tiny
from safetensors.torch import load_file, save_file

from producer.methods import METHODS
from producer.methods.shared.linear_layers import target_layers
from producer.models.find import find_model
from producer.models.integer_weights import unpack_integers
from producer.models.load import load_config, load_model
from producer.models.packed import check_stored
from producer.models.stored_as import Quantization, quantization, stored_level
from schemas.errors import HedgemarkError, UsageError
from schemas.levels import parse_level

pytestmark = pytest.mark.producer
GROUP = 16
FIRST, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
SETTINGS = {"quant_method": "auto-round", "bits": 4, "group_size": GROUP, "sym": False, "data_type": "int", "autoround_version": "0.15.1"}


def packed(folder: Path, packing: str, exceptions: dict[str, int] | None = None, **more: Any) -> Any:
    """Save a tiny model packed as AutoRound does, and return the model that it stands for, written out after the layout's definition.

    exceptions : bits of layers, by a part of their name; 16 leaves a layer as it is.
    """
    settings = SETTINGS | {"packing_format": packing} | more
    model, draw = tiny(), torch.Generator().manual_seed(0)
    tensors = {name: weight for name, weight in model.state_dict().items() if "_proj." not in name}
    for name, layer in target_layers(model).items():
        bits = next((bits for part, bits in (exceptions or {}).items() if part in name), settings["bits"])
        if bits == 16:
            tensors[f"{name}.weight"] = layer.weight.data
            continue
        rows, columns = layer.weight.shape
        integers = torch.randint(0, 2**bits, (columns, rows), generator=draw)
        zeros = torch.randint(1, 2**bits, (columns // GROUP, rows), generator=draw)
        zeros = torch.full_like(zeros, 2 ** (bits - 1)) if settings["sym"] else zeros
        scales = torch.rand(columns // GROUP, rows, generator=draw).half().float() / 2**bits
        groups = torch.arange(columns) // GROUP
        layer.weight.data = ((integers - zeros[groups]) * scales[groups]).T.contiguous()
        order = AWQ_ORDER if "awq" in packing else range(32 // bits)
        stored = zeros - (1 if packing.endswith("gptq") else 0)
        words = into_words(integers, bits, order) if "awq" in packing else into_words(integers.T, bits, order).T.contiguous()
        tensors |= {f"{name}.qweight": words, f"{name}.qzeros": into_words(stored, bits, order), f"{name}.scales": scales}
    save_file(tensors, folder / "model.safetensors")
    model.config.quantization_config = settings
    model.config.save_pretrained(folder)
    return model


def load(folder: Path) -> Any:
    return load_model(find_model(str(folder)), "float32", "cpu")


def level(folder: Path) -> str:
    return stored_level(load_config(find_model(str(folder))))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    "packing", ["auto_round:auto_gptq", "auto_round:gptq", "auto_round", "auto_round:gptqmodel", "auto_round:auto_awq"]
)
def test_each_packing_gives_its_weights(packing: str, symmetric: bool, tmp_path: Path) -> None:
    """Zero points minus one, unchanged, or in AWQ's order, written out by hand: every tensor bit by bit, and the run says who wrote it."""
    meant = packed(tmp_path, packing, sym=symmetric)
    model = load(tmp_path)
    for name, weight in meant.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    assert level(tmp_path) == "w4a16-g16"
    assert METHODS["checkpoint"].apply(model, parse_level("w4a16-g16"), None, 0).conditions["stored_as"] == "auto-round"


@pytest.mark.parametrize(
    ("extra", "exceptions", "expected"),
    [
        ({DOWN: {"bits": 8}}, {DOWN: 8}, "mixed"),
        ({".*down_proj.*": {"bits": 2}, DOWN: {"bits": 8}}, {DOWN: 8, "down_proj": 2}, "mixed"),
        ({DOWN: {"bits": 16, "data_type": "fp"}}, {DOWN: 16}, "w4a16-g16"),
        ({r".*\.0\..*": {"bits": 16}, "lm_head": {"bits": 16}}, {"layers.0.": 16}, "w4a16-g16"),
    ],
)
def test_exceptions_hold_for_their_layers(extra: dict[str, Any], exceptions: dict[str, int], expected: str, tmp_path: Path) -> None:
    """Other bits by name or pattern, the name first; layers that are left as they were do not make the level a mixed one."""
    meant = packed(tmp_path, "auto_round:auto_gptq", exceptions, extra_config=extra)
    model = load(tmp_path)
    for name, weight in meant.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    assert level(tmp_path) == expected


@pytest.mark.parametrize(
    ("extra", "exceptions", "message"),
    [
        ({}, {DOWN: 8}, f"layer {DOWN} has 8 bits by the shape of its tensors, and the quantization settings say 4"),
        ({DOWN: {"bits": 8}}, {}, f"layer {DOWN} has 4 bits by the shape of its tensors, and the quantization settings say 8"),
        ({DOWN: {"bits": 16}}, {}, f"layer {DOWN} has 4 bits by the shape of its tensors, and the quantization settings say 16"),
        ({DOWN: {"group_size": 32}}, {}, f"layer {DOWN} has 6 groups for 96 inputs, and the quantization settings say groups of 32"),
        ({DOWN: {"sym": True}}, {}, f"layer {DOWN} is symmetric by its settings, but its zero points are not all the middle"),
        ({DOWN: {"bits": 8}}, {DOWN: 16}, f"says that {DOWN} has 8 bits, and its weights are plain"),
        ({".*down.*": {"bits": 8}}, {"down": 16}, "has 8 bits, and its weights are plain"),
        ({"model.layers.9.mlp.down_proj": {"bits": 8}}, {}, "names model.layers.9.mlp.down_proj, and the files hold no such layer"),
    ],
)
def test_layers_that_contradict_their_settings_are_refused(
    extra: dict[str, Any], exceptions: dict[str, int], message: str, tmp_path: Path
) -> None:
    """Bits, groups, symmetry, or plain weights other than the exceptions say, and exceptions for layers that are not there."""
    packed(tmp_path, "auto_round", exceptions, extra_config=extra)
    with pytest.raises(HedgemarkError, match=re.escape(message)):
        load(tmp_path)


def test_a_symmetric_layer_packed_as_awq_has_its_zero_points_in_the_middle(tmp_path: Path) -> None:
    """AWQ stores zero points of symmetric layers too; others than 8 contradict the settings."""
    packed(tmp_path, "auto_round:auto_awq")
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["sym"] = True
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(HedgemarkError, match="is symmetric by its settings, but its zero points are not all the middle"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"packing_format": "auto_round:mlx"}, "packing_format 'auto_round:mlx' (those that can be read: auto_round:auto_gptq, "),
        ({"packing_format": None}, "packing_format None"),
        ({"bits": 5}, "an auto-round checkpoint of 5 bits cannot be unpacked; bits that can: 2, 3, 4, 8"),
        ({"bits": 8, "packing_format": "auto_round:auto_awq"}, "an auto-round checkpoint of 8 bits cannot be unpacked; bits that can: 4"),
        ({"bits": "4"}, "bits '4' of weights"),
        ({"data_type": "mx_int"}, "data_type 'mx_int' packed as auto_round"),
        ({"super_bits": 6, "super_group_size": 8}, "super_bits in its settings"),
        ({"rotation_config": {"kind": "hadamard"}}, "rotation_config in its settings"),
        ({"act_bits": 8, "act_data_type": "fp8"}, "weights of 4 bits (int) in groups of 16 beside inputs of 8 bits (fp8)"),
        ({"data_type": "nv_fp", "packing_format": "auto_round:llm_compressor"}, "weights of 4 bits (nv_fp) in groups of 16 beside"),
        ({"data_type": "mx_fp", "packing_format": "auto_round:llm_compressor"}, "data_type 'mx_fp' packed as auto_round:llm_compressor"),
        ({"data_type": "fp", "packing_format": "auto_round:fp8_static"}, "weights of 4 bits (fp)"),
        ({"extra_config": {"a": {"bits": 4, "data_type": "int_asym_dq"}}}, "data_type 'int_asym_dq'"),
        ({"extra_config": {"[": {"bits": 8}}}, "'[' in extra_config, which is no name or pattern"),
        ({"extra_config": ["a"]}, "an extra_config that is no table"),
    ],
)
def test_settings_that_are_not_known_are_refused_by_name(more: dict[str, Any], message: str) -> None:
    """Before weights are read: another packing, other bits or types, rounded inputs, rotations, damaged exceptions."""
    inputs = {"act_bits": 4, "act_data_type": "nv_fp"} if more.get("data_type") == "nv_fp" else {}
    config = tiny().config
    config.quantization_config = SETTINGS | {"packing_format": "auto_round"} | inputs | more
    with pytest.raises(UsageError, match=re.escape(message)):
        check_stored(config)


def by_library(kind: str, layer: Any, scales: Any, zeros: Any, bits: int) -> Any:
    """Return a layer packed by the library itself, as it exports it."""
    from auto_round_extension.torch import qlinear_torch, qlinear_torch_zp

    if kind == "awq":
        from auto_round.export.export_to_awq.utils import WQLinear_GEMM

        return WQLinear_GEMM.from_linear(layer, bits, GROUP, scales=scales.T.contiguous(), zeros=zeros.T.contiguous(), device="cpu")
    module = (qlinear_torch_zp if kind == "gptq" else qlinear_torch).QuantLinear(bits, GROUP, 64, 32, bias=False)
    module.device = torch.device("cpu")
    module.pack(layer, scales.clone(), zeros.clone(), None, device="cpu")
    return module


@pytest.mark.slow  # importing the library takes about 10 seconds
@pytest.mark.filterwarnings("ignore")  # of the library's import
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    ("kind", "bits"), [("gptq", 2), ("gptq", 3), ("gptq", 4), ("gptq", 8), ("", 2), ("", 3), ("", 4), ("", 8), ("awq", 4)]
)
def test_what_the_library_packs_is_what_is_read(kind: str, bits: int, symmetric: bool) -> None:
    """Every number of bits in the three layouts: the weight that was packed, to the last bit that half precision scales leave."""
    pytest.importorskip("auto_round", reason="auto-round is not installed")
    draw = torch.Generator().manual_seed(bits)
    scales = (torch.rand(32, 64 // GROUP, generator=draw) / 10 + 0.01).half().float()
    zeros = torch.randint(1, 2**bits, (32, 64 // GROUP), generator=draw).float()
    zeros = torch.full_like(zeros, 2 ** (bits - 1)) if symmetric else zeros
    groups = torch.arange(64) // GROUP
    integers = (zeros[:, groups] + torch.randn(32, 64, generator=draw)).round().clamp(0, 2**bits - 1)
    layer = torch.nn.Linear(64, 32, bias=False)
    layer.weight.data = (integers - zeros[:, groups]) * scales[:, groups]
    tensors = {f"layer.{name}": value for name, value in by_library(kind, layer, scales, zeros, bits).state_dict().items()}
    config = tiny().config
    packing = {"gptq": "auto_round:auto_gptq", "": "auto_round", "awq": "auto_round:auto_awq"}[kind]
    config.quantization_config = SETTINGS | {"packing_format": packing, "bits": bits, "sym": symmetric}
    [(_, weight)] = unpack_integers(tensors, quantization(config))
    assert torch.equal(weight, layer.weight.data)


CASES: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "symmetric": ({"bits": 4, "group_size": 32, "sym": True}, "auto_round", "auto-round", "w4a16-g32"),
    "asymmetric": ({"bits": 4, "group_size": 32, "sym": False}, "auto_round", "auto-round", "w4a16-g32"),
    "mixed": ({"bits": 4, "group_size": 32, "layer_config": {DOWN: {"bits": 8}, FIRST: {"bits": 16}}}, "auto_round", "auto-round", "mixed"),
    "as gptq": ({"bits": 4, "group_size": 32, "sym": True}, "auto_gptq", "gptq", "w4a16-g32"),
    "as awq": ({"bits": 4, "group_size": 32, "sym": False}, "auto_awq", "awq", "w4a16-g32"),
    "as compressed-tensors": ({"bits": 4, "group_size": 32}, "llm_compressor", "compressed-tensors", "w4a16-g32"),
    "nvfp4": ({"scheme": "NVFP4"}, "auto_round", "auto-round", "NVFP4"),
    "float8": ({"scheme": "FPW8A16"}, "auto_round", "auto-round", "FP8"),
}


@pytest.mark.slow  # about 10 seconds for each, which compress a tiny model
@pytest.mark.filterwarnings("ignore")  # of the library
@pytest.mark.parametrize("case", CASES)
def test_checkpoints_of_the_library_are_read(case: str, tmp_path: Path) -> None:
    """Made from start to end by the library: every weight within its rounding of the dense one, no layer left out, the level named."""
    auto_round = pytest.importorskip("auto_round", reason="auto-round is not installed")
    from producer_tiny import tiny_data
    from transformers import AutoTokenizer

    scheme, form, writer, expected = CASES[case]
    tokenizer = AutoTokenizer.from_pretrained("producer/reference/models/ref-s")
    data = [torch.tensor([row]) for row in tiny_data(8, 32).input_ids]
    model = tiny()
    model.name_or_path = model.config._name_or_path = str(tmp_path / "dense")  # no name that is looked up on the Hub
    rounding = auto_round.AutoRound(
        model, tokenizer, iters=0, disable_opt_rtn=True, nsamples=8, seqlen=32, dataset=data, device_map="cpu", **scheme
    )
    rounding.quantize_and_save(str(tmp_path / "made"), format=form)
    [folder] = {path.parent for path in (tmp_path / "made").rglob("config.json")}
    loaded, dense = load(folder), target_layers(tiny())
    kept = {FIRST} if case == "mixed" else set()
    for name, layer in target_layers(loaded).items():
        error = float((layer.weight - dense[name].weight).detach().norm() / dense[name].weight.detach().norm())
        assert error == 0 if name in kept else 0 < error < 0.15, (name, error)
    assert level(folder) == expected
    stored = quantization(loaded.config)
    assert (stored.writer or stored.format) == writer


def test_nvfp4_with_stored_input_scales_is_read_as_compressed_tensors_defines_it(tmp_path: Path) -> None:
    """One layer written out: two values in a byte, a float8 scale for 16 of them and one divisor for all; inputs are rounded too."""
    values = (0, 0.5, 1, 1.5, 2, 3, 4, 6)
    model, draw = tiny(), torch.Generator().manual_seed(0)
    tensors = {name: weight for name, weight in model.state_dict().items() if "_proj." not in name}
    for name, layer in target_layers(model).items():
        rows, columns = layer.weight.shape
        codes = torch.randint(0, 16, (rows, columns), generator=draw)
        scales = (torch.rand(rows, columns // 16, generator=draw) * 100 + 1).to(torch.float8_e4m3fn)
        numbers = torch.tensor([*values, *(-value for value in values)])[codes]
        layer.weight.data = numbers * (scales.float() / 512).repeat_interleave(16, 1)
        tensors |= {
            f"{name}.weight_packed": (codes[:, ::2] | codes[:, 1::2] << 4).to(torch.uint8),
            f"{name}.weight_scale": scales,
            f"{name}.weight_global_scale": torch.tensor([512.0]),
            f"{name}.input_global_scale": torch.tensor([64.0]),
        }
    save_file(tensors, tmp_path / "model.safetensors")
    settings = {"data_type": "nv_fp", "act_bits": 4, "act_data_type": "nv_fp4_with_static_gs", "sym": True, "act_dynamic": True}
    model.config.quantization_config = SETTINGS | settings | {
        "packing_format": "auto_round:llm_compressor", "block_name_to_quantize": "model.layers",
    }  # fmt: skip
    model.config.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    for name, layer in target_layers(model).items():
        assert torch.equal(target_layers(loaded)[name].weight, layer.weight), name
        assert target_layers(loaded)[name]._forward_pre_hooks
    assert not loaded.lm_head._forward_pre_hooks
    assert level(tmp_path) == "NVFP4"
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({name: tensor for name, tensor in tensors.items() if name != f"{FIRST}.input_global_scale"}, tmp_path / "model.safetensors")
    with pytest.raises(HedgemarkError, match=f"module {FIRST} lacks input_global_scale"):
        load(tmp_path)


def test_float8_is_read_with_its_scales(tmp_path: Path) -> None:
    """One scale per row beside a stored scale of the inputs, with which they are rounded; the key/value cache is left out and named."""
    model = tiny()
    tensors = {name: weight for name, weight in model.state_dict().items() if "_proj." not in name}
    for name, layer in target_layers(model).items():
        scale = layer.weight.data.abs().amax(1, keepdim=True) / 448
        rounded = (layer.weight.data / scale).to(torch.float8_e4m3fn)
        layer.weight.data = rounded.float() * scale
        tensors |= {f"{name}.weight": rounded, f"{name}.weight_scale": scale[:, 0], f"{name}.input_scale": torch.tensor([0.01])}
    save_file(tensors, tmp_path / "model.safetensors")
    settings = {"bits": 8, "data_type": "fp", "act_bits": 8, "act_data_type": "fp", "act_dynamic": False, "group_size": -1, "sym": True}
    model.config.quantization_config = SETTINGS | settings | {"packing_format": "auto_round:fp8_static", "static_kv_dtype": "fp8"}
    model.config.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    for name, layer in target_layers(model).items():
        assert torch.equal(target_layers(loaded)[name].weight, layer.weight), name
    conditions = METHODS["checkpoint"].apply(loaded, parse_level(level(tmp_path)), None, 0).conditions
    assert conditions["not_simulated"] == ["rounding of the key/value cache"]


def test_settings_of_other_writers_are_left_alone() -> None:
    """A GPTQ checkpoint that AutoRound exported is a GPTQ checkpoint."""
    config = tiny().config
    config.quantization_config = {"quant_method": "gptq", "bits": 4, "group_size": 32, "provider": "auto-round", "sym": True}
    assert quantization(config) == Quantization("gptq", config.quantization_config)
