"""Checkpoints that contradict themselves: two files, names or settings say different things, and neither may win without a word."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from producer_packed import into_words, packed_folder
from producer_standin import save_standin
from producer_tiny import tiny
from safetensors.torch import load_file, save_file

from producer.cli.main import main
from producer.models.find import find_model
from producer.models.load import load_config, load_model
from schemas.errors import HedgemarkError, UsageError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.producer
FIRST = "model.layers.0.self_attn.q_proj"
EXPERTS = "model.layers.0.mlp.experts"
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def change(folder: Path, **changed: Any) -> None:
    """Replace or add tensors of a folder's weights file; None removes one."""
    tensors = load_file(folder / "model.safetensors") | changed
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def settings_of(folder: Path, **changed: Any) -> None:
    """Change the quantization settings in config.json."""
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = config.get("quantization_config", {}) | changed
    (folder / "config.json").write_text(json.dumps(config))


def load(folder: Path) -> Any:
    return load_model(find_model(str(folder)), "float32", "cpu")


@pytest.mark.parametrize("name", ["lm_head.weight", "model.norm.weight"])
def test_a_tensor_under_two_spellings_is_refused(name: str, tmp_path: Path) -> None:
    """transformers strips `model.` from a name and keeps one of the two tensors; which one, the files do not say."""
    tiny().save_pretrained(tmp_path)
    change(tmp_path, **{f"model.{name}": torch.ones_like(load_file(tmp_path / "model.safetensors")[name])})
    with pytest.raises(HedgemarkError, match=re.escape(f"hold both model.{name} and {name}, which are one tensor")):
        load(tmp_path)


@pytest.mark.parametrize("parts", [PROJECTIONS, PROJECTIONS[2:]])
@pytest.mark.parametrize(("old", "new"), [(0, "7"), (3, "7"), (1, "01")])
def test_experts_are_not_put_together_in_another_order(parts: tuple[str, ...], old: int, new: str, tmp_path: Path) -> None:
    """Libraries stack experts in the order of their numbers: without expert 0 the router would ask the wrong ones."""
    tiny("qwen3_moe").save_pretrained(tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    moved = {f"{EXPERTS}.{new}.{part}.weight": held[f"{EXPERTS}.{old}.{part}.weight"].clone() for part in parts}
    change(tmp_path, **moved, **{f"{EXPERTS}.{old}.{part}.weight": None for part in parts})
    with pytest.raises(HedgemarkError, match="do not number their experts from 0 on"):
        load(tmp_path)


def test_experts_are_not_stored_twice(tmp_path: Path) -> None:
    """One by one and all in one tensor: the model would have one of the two forms, unsaid which."""
    tiny("qwen3_moe").save_pretrained(tmp_path)
    load(tmp_path)
    change(tmp_path, **{f"{EXPERTS}.down_proj": torch.ones(4, 64, 32)})
    with pytest.raises(HedgemarkError, match=re.escape(f"one by one and together, as {EXPERTS}.down_proj")):
        load(tmp_path)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"])
def test_an_adapter_beside_the_weights_is_not_left_out(name: str, tmp_path: Path) -> None:
    """Two adapters over one base model, each saved beside a copy of it, would be one model without them."""
    tiny().save_pretrained(tmp_path)
    (tmp_path / name).write_text("{}")
    with pytest.raises(UsageError, match=rf"holds an adapter \({name}\), not a whole model"):
        load_config(find_model(str(tmp_path)))


@pytest.mark.parametrize(
    ("kind", "said", "message"),
    [
        ("gptq", {"bits": 8}, "has 4 bits by the shape of its tensors, and the quantization settings say 8"),
        ("gptq", {"group_size": 32}, "has 4 groups for 64 inputs, and the quantization settings say groups of 32"),
        ("awq", {"group_size": -1}, "groups for 64 inputs, and the quantization settings say groups of -1"),
        ("awq", {"group_size": 128}, "groups for 64 inputs, and the quantization settings say groups of 128"),
    ],
)
def test_a_level_that_the_tensors_contradict_is_refused(kind: str, said: dict[str, Any], message: str, tmp_path: Path) -> None:
    """The level of a run is taken from the settings, so that settings of another checkpoint would name it wrongly."""
    packed_folder(tmp_path, {"quant_method": kind, "bits": 4, "group_size": 16})
    only_first(tmp_path)
    settings_of(tmp_path, **said)
    with pytest.raises(HedgemarkError, match=re.escape(message)):
        load(tmp_path)
    settings_of(tmp_path, dynamic={"+:.*": said})  # exceptions by layer: the level is "mixed", and the tensors decide
    if kind == "gptq":
        load(tmp_path)


def only_first(folder: Path) -> None:
    """Pack no layer but the first, so that its shapes are those in messages."""
    tensors, plain = load_file(folder / "model.safetensors"), tiny().state_dict()
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith(FIRST) or "_proj" not in name}
    layers = {name: weight.clone() for name, weight in plain.items() if "_proj" in name and not name.startswith(FIRST)}
    save_file(kept | layers, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({f"{FIRST}.weight": torch.ones(64, 64)}, f"layer {FIRST} has packed integers (qweight) and plain weights as well"),
        ({f"{FIRST}.scales": torch.ones(4, 64, dtype=torch.int32)}, "no scales that are floating-point numbers"),
        ({f"{FIRST}.g_idx": torch.arange(64) / 16}, "has a g_idx that is not made of whole numbers"),
    ],
)
def test_parts_of_other_kinds_are_refused(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    """A layer in two forms, scales that are integers, groups that are fractions: each would be read as something else."""
    packed_folder(tmp_path, {"quant_method": "gptq", "bits": 4, "group_size": 16})
    change(tmp_path, **changed)
    with pytest.raises(HedgemarkError, match=re.escape(message)):
        load(tmp_path)


def test_zero_points_that_were_written_over_others_are_refused(tmp_path: Path) -> None:
    """AutoGPTQ writes 32 ones for a zero point of 0, over all after it in the word; a borrow leaves other fields after 15."""
    packed_folder(tmp_path, {"quant_method": "gptq", "bits": 4, "group_size": 16})
    words = load_file(tmp_path / "model.safetensors")[f"{FIRST}.qzeros"]
    words[0, 0] = 0x765 - 2**12  # fields 5, 6, 7, then ones: zero points 6, 7, 8, 0 and four that are lost
    change(tmp_path, **{f"{FIRST}.qzeros": words})
    with pytest.raises(HedgemarkError, match=f"layer {FIRST} has zero points of 0 that were written over those beside them"):
        load(tmp_path)
    words[1, 0] = 0x3F5  # a borrow from the third field, so that the first word is 6, 7, 8, 0, 1, 1, 1, 1
    change(tmp_path, **{f"{FIRST}.qzeros": words})
    load(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"quant_method": "gptq", "bits": 4, "group_size": 16},
        {"quant_method": "awq", "bits": 4, "group_size": 16},
        {"quant_method": "fp8", "weight_block_size": [16, 16]},
        {"quant_method": "modelopt", "quant_algo": "FP8"},
        {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4}}}},
    ],
    ids=lambda settings: settings["quant_method"],
)
def test_plain_weights_are_not_called_quantized(settings: dict[str, Any], tmp_path: Path) -> None:
    """The settings of a quantized checkpoint beside the original's weights would give its level to a dense model."""
    tiny().save_pretrained(tmp_path)
    settings_of(tmp_path, **settings)
    with pytest.raises(HedgemarkError, match=r"the quantization settings (say|name)"):
        load(tmp_path)


def packed_by_compressed_tensors(folder: Path) -> Any:
    """Write a model whose first layer is packed in 4 bits, 32 inputs to a scale, and return the layer's weight."""
    draw = torch.Generator().manual_seed(0)
    integers, scale = torch.randint(-8, 8, (64, 64), generator=draw), torch.rand(64, 2, generator=draw)
    tiny().save_pretrained(folder)
    packed = {"packed": into_words(integers + 8, 4, range(8)), "scale": scale, "shape": torch.tensor([64, 64])}
    change(folder, **{f"{FIRST}.weight": None}, **{f"{FIRST}.weight_{part}": tensor for part, tensor in packed.items()})
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
    group = {"targets": [f"re:.*{FIRST}"], "weights": weights, "format": "pack-quantized"}
    settings_of(folder, quant_method="compressed-tensors", format="pack-quantized", config_groups={"group_0": group})
    return integers * scale.repeat_interleave(32, 1)


@pytest.mark.parametrize(
    ("part", "tensor", "message"),
    [
        ("", None, ""),
        ("weight_zero_point", torch.zeros(64, 2, dtype=torch.int8), ""),
        ("weight_zero_point", torch.ones(64, 2, dtype=torch.int8), "is stored with weight_zero_point, which its quantization_config"),
        ("weight_g_idx", torch.arange(64).flip(0) // 32, "is stored with weight_g_idx, which"),
        ("weight_global_scale", torch.ones(1), "is stored with weight_global_scale, which"),
        ("input_scale", torch.ones(1), "is stored with input_scale, which"),
        ("weight", torch.ones(64, 64), "is stored with weight, which"),
        ("weight_shape", None, "lacks weight_shape, which its quantization_config announces"),
        ("weight_scale", torch.ones(64, 1), "has scales (64, 1) torch.float32 for a weight of (64, 64), not those that its config"),
        ("weight_scale", torch.ones(64, 2).int(), "has scales (64, 2) torch.int32 for a weight of (64, 64), not those that"),
        ("weight_packed", torch.zeros(64, 4, dtype=torch.int32), "has packed words (64, 4) for a weight of (64, 64) in 4 bits"),
        ("weight_shape", torch.tensor([64, 32]), "has packed words (64, 8) for a weight of (64, 32) in 4 bits"),
    ],
)
def test_compressed_tensors_uses_or_names_every_tensor_of_a_module(part: str, tensor: Any, message: str, tmp_path: Path) -> None:
    """What a scheme does not announce its library leaves out, scales that are too few it repeats, and missing words it pads."""
    meant = packed_by_compressed_tensors(tmp_path)
    change(tmp_path, **({f"{FIRST}.{part}": tensor} if part else {}))
    if not message:
        torch.testing.assert_close(load(tmp_path).get_parameter(f"{FIRST}.weight"), meant, atol=0, rtol=0)
        return
    with pytest.raises(HedgemarkError, match=re.escape(f"module {FIRST} {message}")):
        load(tmp_path)


STATIC = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "tensor", "dynamic": False}


@pytest.mark.parametrize(
    ("weights", "inputs", "beside", "lacks"),
    [
        ({"symmetric": False}, None, {}, "weight_zero_point"),
        ({}, STATIC, {}, "input_scale"),
        ({}, STATIC | {"symmetric": False}, {"input_scale": torch.ones(1)}, "input_zero_point"),
        ({}, STATIC | {"strategy": "tensor_group", "group_size": 16, "dynamic": "local"}, {}, "input_global_scale"),
    ],
)
def test_compressed_tensors_lacks_nothing_that_its_scheme_needs(
    weights: dict[str, Any], inputs: Any, beside: dict[str, Any], lacks: str, tmp_path: Path
) -> None:
    """A zero point that is missing would be taken for 0, and an overall scale for 1."""
    packed_by_compressed_tensors(tmp_path)
    group = json.loads((tmp_path / "config.json").read_text())["quantization_config"]["config_groups"]["group_0"]
    changed = group | {"weights": group["weights"] | weights, "input_activations": inputs}
    settings_of(tmp_path, config_groups={"group_0": changed})
    change(tmp_path, **{f"{FIRST}.{part}": tensor for part, tensor in beside.items()})
    with pytest.raises(HedgemarkError, match=re.escape(f"module {FIRST} lacks {lacks}, which its quantization_config announces")):
        load(tmp_path)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["re:.*nowhere"], f"module {FIRST} is stored with scales, and no group of its quantization_config is meant for it"),
        (["Linear"], "is stored without the scales that its quantization_config announces"),
    ],
)
def test_groups_of_a_config_and_stored_scales_are_about_the_same_layers(targets: list[str], message: str, tmp_path: Path) -> None:
    """A layer with scales that nothing explains, and plain layers of which the config says that they are quantized."""
    packed_by_compressed_tensors(tmp_path)
    group = json.loads((tmp_path / "config.json").read_text())["quantization_config"]["config_groups"]["group_0"]
    settings_of(tmp_path, config_groups={"group_0": group | {"targets": targets}})
    with pytest.raises(HedgemarkError, match=re.escape(message)):
        load(tmp_path)


@pytest.mark.parametrize("dtype", ["auto", "float32"])
@pytest.mark.parametrize(
    ("name", "shape"), [("model.embed_tokens.weight", (600, 64)), (f"{FIRST}.weight", (64, 32)), ("model.norm.weight", (32,))]
)
def test_a_tensor_of_another_shape_than_the_configs_is_named(name: str, shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    """A vocabulary that was enlarged in the weights alone, or a width of another model: both shapes are said."""
    tiny().save_pretrained(tmp_path)
    held = load_file(tmp_path / "model.safetensors")[name].shape
    change(tmp_path, **{name: torch.zeros(shape)})
    said = f"tensor {name} of '{tmp_path.name}' in {tmp_path} has shape {shape}, and its config describes one of {tuple(held)}; the weights"
    with pytest.raises(HedgemarkError, match=re.escape(said)):
        load_model(find_model(str(tmp_path)), dtype, "cpu")


@pytest.mark.parametrize(
    ("kind", "name", "beside", "message"),
    [
        ("gptq", "quantize_config.json", {"bits": 8}, "bits is 4 in config.json and 8 in quantize_config.json"),
        ("gptq", "quantize_config.json", {"desc_act": True}, "desc_act is False in config.json and True in quantize_config.json"),
        ("gptq", "quant_config.json", {"w_bit": 4}, "quant_method is 'gptq' in config.json and 'awq' in quant_config.json"),
        ("gptq", "quantize_config.json", {"bits": 4, "group_size": 16, "damp_percent": 0.1}, ""),
        ("awq", "quant_config.json", {"w_bit": 4, "q_group_size": 16, "version": "GEMM", "zero_point": True}, ""),
        ("awq", "quant_config.json", {"w_bit": 4, "q_group_size": 64, "version": "GEMM"}, "group_size is 16 in config.json and 64 in"),
    ],
)
def test_settings_in_two_files_must_agree(kind: str, name: str, beside: dict[str, Any], message: str, tmp_path: Path) -> None:
    """AutoGPTQ reads quantize_config.json first and transformers config.json; where they differ, each reads another model."""
    packed_folder(tmp_path, {"quant_method": kind, "bits": 4, "group_size": 16, "version": "gemm", "desc_act": False})
    (tmp_path / name).write_text(json.dumps(beside))
    if not message:
        load(tmp_path)
        return
    with pytest.raises(UsageError, match=re.escape(message)):
        load_config(find_model(str(tmp_path)))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"rope_theta": 5e5}, "config.json says rope_theta 500000.0 and, in rope_parameters, 10000.0"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "config.json says rope_type linear and, in rope_parameters, default"),
        ({"rope_theta": 1e4, "rope_scaling": None}, ""),
        ({"rope_scaling": {"rope_type": "default"}}, ""),
    ],
)
def test_rotary_settings_in_two_forms_must_agree(said: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Older and newer versions of transformers read different ones of the two, and so a different model."""
    tiny().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["rope_parameters"] == {"rope_theta": 10000.0, "rope_type": "default"}
    (tmp_path / "config.json").write_text(json.dumps(config | said))
    if not message:
        load(tmp_path)
        return
    with pytest.raises(UsageError, match=re.escape(message)):
        load_config(find_model(str(tmp_path)))


def test_damaged_weights_are_called_so(tmp_path: Path) -> None:
    """A NaN among the weights is no change by a method that changes nothing."""
    save_standin(tmp_path, tie_word_embeddings=False)
    change(tmp_path, **{f"{FIRST}.weight": torch.full((32, 32), torch.nan)})
    asked = ["--model", str(tmp_path), "--task", "urn", "--limit", "2", "--method", "checkpoint", "--device", "cpu"]
    result = CliRunner().invoke(main, [*asked, "--store", str(tmp_path / "store")])
    assert result.exit_code == 5
    assert "some logits of the model are NaN or infinite as it was given" in result.stderr


def test_two_settings_files_must_agree(tmp_path: Path) -> None:
    """Where config.json says nothing, two files beside it may not say different things either."""
    packed_folder(tmp_path, {"quant_method": "gptq", "bits": 4, "group_size": 16})
    config = json.loads((tmp_path / "config.json").read_text())
    del config["quantization_config"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "quantize_config.json").write_text(json.dumps({"bits": 4, "group_size": 16}))
    load(tmp_path)
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "FP8"}}))
    with pytest.raises(UsageError, match=r"quant_method is 'modelopt' in hf_quant_config.json and 'gptq' in quantize_config.json"):
        load_config(find_model(str(tmp_path)))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e5m2])
def test_every_kind_of_eight_bit_floats_is_read_as_such(dtype: Any, tmp_path: Path) -> None:
    """The same byte is another number in each kind, half as large in AMD's e4m3fnuz; the file says which it is."""
    meant = tiny()
    tensors = dict(meant.state_dict())
    for name in [name for name in tensors if "_proj" in name]:
        raw = (tensors[name] / 0.01).to(dtype)
        meant.get_parameter(name).data = raw.float() * 0.01
        tensors |= {name: raw, f"{name}_scale": torch.tensor(0.01)}
    meant.config.save_pretrained(tmp_path)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    settings_of(tmp_path, quant_method="fp8")
    found = load(tmp_path).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in meant.state_dict().items())
