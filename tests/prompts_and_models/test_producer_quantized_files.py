"""Quantized checkpoints of other people's making: each gives the weights that its format defines, or is refused by name.

The packers here follow the formats' published definitions and share no code with the readers.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from producer_packed import packed_folder
from producer_standin import save_standin
from producer_tiny import CONFIGS, tiny
from safetensors.torch import load_file, save_file

from producer.cli.main import main
from producer.methods import METHODS
from producer.methods.shared.linear_layers import target_layers
from producer.models.find import find_model
from producer.models.load import load_config, load_model
from producer.models.stored_as import stored_level
from producer.request.request import Request
from producer.run.plan import make_plan
from schemas.errors import HedgemarkError, UsageError
from schemas.levels import parse_level
from store import open_reader

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.producer
GROUP = 32
MIXED_BITS = {"dynamic": {"+:.*down_proj": {"bits": 8}}}
FIRST = "model.layers.0.self_attn.q_proj"


def bits_of(values: Any, bits: int) -> Any:
    """Return rows of unsigned integers as one row of bits each, lowest bit first."""
    return ((np.asarray(values)[..., None] >> np.arange(bits)) & 1).reshape(len(values), -1)


def words(values: Any, bits: int) -> Any:
    """Pack rows of unsigned integers into int32 words, as a stream of bits from the lowest on."""
    stream = bits_of(values, bits).reshape(len(values), -1, 32).astype(np.uint64)
    return torch.from_numpy((stream << np.arange(32, dtype=np.uint64)).sum(-1).astype(np.uint32).view(np.int32).copy())


def minus_one(packed: Any, bits: int) -> Any:
    """Subtract 1 from every field of whole words, borrowing across fields, as the first version of GPTQ stores zero points."""
    ones = sum(1 << bits * field for field in range(32 // bits))
    return torch.from_numpy((packed.numpy().view(np.uint32) - np.uint32(ones)).view(np.int32).copy())


def quantize(weight: Any, bits: int, groups: Any, symmetric: bool) -> tuple[Any, Any, Any, Any]:
    """Return integers (output, input), zero points and scales (output, group), and the weight that they stand for."""
    top, n_groups = 2**bits - 1, int(groups.max()) + 1
    lows, highs = (torch.stack([limit(weight[:, groups == g], 1) for g in range(n_groups)], 1) for limit in (torch.amin, torch.amax))
    if symmetric:
        scales = torch.maximum(-lows, highs) * 2 / top
        zeros = torch.full_like(scales, 2 ** (bits - 1))
    else:
        lows, highs = lows.clamp(max=0), highs.clamp(min=0)
        scales = (highs - lows) / top
        zeros = torch.round(-lows / scales)
    scales = scales.half().float()
    integers = torch.clamp(torch.round(weight / scales[:, groups]) + zeros[:, groups], 0, top)
    return integers.long().numpy(), zeros.long().numpy(), scales, (integers - zeros[:, groups]) * scales[:, groups]


@dataclass(frozen=True)
class Gptq:
    """How a GPTQ checkpoint is written."""

    symmetric: bool
    version: int
    label: str | None
    bits: Callable[[str], int] = lambda name: 4
    shuffled: bool = False
    positive: bool = False
    architecture: str = "llama"
    more: dict[str, Any] = field(default_factory=dict)


def save_gptq(folder: Path, how: Gptq) -> Any:
    """Write a GPTQ checkpoint of a tiny model, and return the model that it stands for."""
    model = tiny(how.architecture)
    tensors = {name: weight.clone() for name, weight in model.state_dict().items() if "_proj." not in name}
    for name, layer in target_layers(model).items():
        weight, width = layer.weight.data, how.bits(name)
        if how.positive:
            weight[::3] = weight[::3].abs()
        order = (
            torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(1)) if how.shuffled else torch.arange(weight.shape[1])
        )
        groups = torch.empty_like(order).index_put_((order,), torch.arange(len(order)) // GROUP)
        integers, zeros, scales, meant = quantize(weight, width, groups, how.symmetric)
        layer.weight.data = meant
        packed = words(zeros.T, width) if how.version == 2 or width != 3 else words((zeros.T - 1) % 8, 3)
        tensors |= {
            f"{name}.qweight": words(integers, width).T.contiguous(),
            f"{name}.qzeros": minus_one(packed, width) if how.version == 1 and width != 3 else packed,
            f"{name}.scales": scales.T.half().contiguous(),
            f"{name}.g_idx": groups.int(),
        }
    model.config.save_pretrained(folder)
    settings = {"quant_method": "gptq", "bits": how.bits(""), "group_size": GROUP, "desc_act": how.shuffled, "sym": how.symmetric}
    settings |= how.more
    settings |= {} if how.label is None else {"checkpoint_format": how.label}
    write_settings(folder, settings)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return model


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))


def assert_same_weights(folder: Path, meant: Any) -> Any:
    """Load a checkpoint in float32 and compare every tensor with what it stands for, bit by bit."""
    loaded = load_model(find_model(str(folder)), "float32", "cpu")
    found, expected = loaded.state_dict(), meant.state_dict()
    assert {name for name in found if not name.endswith(".input_scale")} == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name
    return loaded


@pytest.mark.parametrize(
    "case",
    [
        {"symmetric": True, "version": 1, "label": "gptq"},
        {"symmetric": True, "version": 1, "label": None},
        {"symmetric": True, "version": 2, "label": "gptq_v2"},
        {"symmetric": True, "version": 1, "label": "gptq_v2"},  # the label says the other version
        {"symmetric": True, "version": 2, "label": "gptq"},
        {"symmetric": False, "version": 1, "label": "gptq"},
        {"symmetric": False, "version": 2, "label": "gptq_v2"},
        {"symmetric": False, "version": 1, "label": "gptq", "positive": True},  # zero points of 0, stored as 15 with a borrow
        {"symmetric": False, "version": 1, "label": "gptq", "positive": True, "bits": lambda name: 2},
        {"symmetric": False, "version": 1, "label": "gptq", "positive": True, "bits": lambda name: 8},
        {"symmetric": False, "version": 1, "label": "gptq", "positive": True, "bits": lambda name: 3},  # three bits straddle words
        {"symmetric": False, "version": 2, "label": "gptq_v2", "shuffled": True},
        {
            "symmetric": False,
            "version": 1,
            "label": "gptq",
            "bits": lambda name: 8 if "down_proj" in name else 4,
            "more": {"dynamic": {"+:.*down": {"bits": 8}}},
        },
        {"symmetric": True, "version": 1, "label": "gptq", "architecture": "qwen3"},
    ],
    ids=lambda case: re.sub(r" at 0x[0-9a-f]+", "", str(case)),
)
def test_gptq_in_every_version_gives_its_weights(case: dict[str, Any], tmp_path: Path) -> None:
    """Zero points of both versions, whatever the label says, with borrows, in 2, 3, 4, 8 and mixed bits, in any order of columns."""
    assert_same_weights(tmp_path, save_gptq(tmp_path, Gptq(**case)))


@pytest.mark.parametrize("version", [1, 2])
def test_an_asymmetric_checkpoint_under_the_wrong_label_is_refused(version: int, tmp_path: Path) -> None:
    """Where the label says the other version than the zero points show, nothing can be taken for granted."""
    save_gptq(tmp_path, Gptq(symmetric=False, version=version, label="gptq_v2" if version == 1 else "gptq"))
    with pytest.raises(HedgemarkError, match=f"correct the label .* to '{'gptq' if version == 1 else 'gptq_v2'}'"):
        load_model(find_model(str(tmp_path)), "float32", "cpu")


@pytest.mark.parametrize(
    ("more", "part", "message"),
    [
        ({"shuffled": True}, "g_idx", "took its inputs in another order (desc_act), and g_idx, which says in which, is missing"),
        ({"symmetric": False}, "qzeros", "has no zero points (qzeros), and the checkpoint does not say that it is symmetric"),
    ],
)
def test_parts_that_settings_call_for_must_be_there(more: dict[str, Any], part: str, message: str, tmp_path: Path) -> None:
    """Without the order of inputs, or without zero points, the integers would stand for other weights."""
    save_gptq(tmp_path, Gptq(**({"symmetric": True, "version": 1, "label": "gptq"} | more)))
    change(tmp_path, **{name: None for name in load_file(tmp_path / "model.safetensors") if name.endswith(part)})
    with pytest.raises(HedgemarkError, match=re.escape(message)):
        load_model(find_model(str(tmp_path)), "float32", "cpu")


def test_awq_without_zero_points_is_refused(tmp_path: Path) -> None:
    """AWQ's layout always stores them; a layer without was taken for a symmetric one."""
    packed_folder(tmp_path, {"quant_method": "awq", "bits": 4, "group_size": 16})
    change(tmp_path, **{f"{FIRST}.qzeros": None})
    with pytest.raises(HedgemarkError, match=re.escape(f"layer {FIRST} has no zero points (qzeros)")):
        load_model(find_model(str(tmp_path)), "float32", "cpu")


def test_a_symmetric_checkpoint_without_zero_points_is_read(tmp_path: Path) -> None:
    """Some writers leave out zero points that are all the middle of their range."""
    meant = save_gptq(tmp_path, Gptq(symmetric=True, version=1, label="gptq"))
    change(tmp_path, **{name: None for name in load_file(tmp_path / "model.safetensors") if name.endswith("qzeros")})
    assert_same_weights(tmp_path, meant)


@pytest.mark.parametrize("stray", [False, True])
def test_packed_weights_in_several_files_are_read_whole(stray: bool, tmp_path: Path) -> None:
    """Parts of a layer may lie in different files; a tensor in one of them that the index does not name is not left out unseen."""
    meant = save_gptq(tmp_path, Gptq(symmetric=False, version=1, label="gptq", shuffled=True))
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    index = {}
    for number in range(3):
        part = {name: tensors[name] for name in sorted(tensors)[number::3]}
        index |= dict.fromkeys(part, f"model-{number}.safetensors")
        more = {"stray.weight": torch.zeros(3)} if stray and not number else {}
        save_file(part | more, tmp_path / f"model-{number}.safetensors", metadata={"format": "pt"})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    if not stray:
        assert_same_weights(tmp_path, meant)
        return
    with pytest.raises(HedgemarkError, match=r"no use for, stray\.weight among them"):
        load_model(find_model(str(tmp_path)), "float32", "cpu")


def change(folder: Path, **changed: Any) -> None:
    """Replace tensors of a checkpoint by name, and drop those that are given as None."""
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in ({**tensors, **changed}).items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({f"{FIRST}.scales": None}, f"layer {FIRST} has packed integers (qweight) but no scales"),
        ({f"{FIRST}.g_idx": torch.zeros(64, dtype=torch.int32)}, "g_idx leaves some of its 2 groups without inputs"),
        ({f"{FIRST}.g_idx": torch.full((64,), 2, dtype=torch.int32)}, "g_idx does not name one of 2 groups for each of 64 inputs"),
        ({f"{FIRST}.qweight": torch.zeros(8, 64, dtype=torch.int64)}, "words of another type than int32"),
        ({f"{FIRST}.lora_A.weight": torch.zeros(4, 64)}, f"no use for, {FIRST}.lora_A.weight among them (an adapter that is not merged"),
        ({f"{FIRST}.input_scale": torch.ones(1)}, f"no use for, {FIRST}.input_scale among them"),
        ({"model.norm.weight": None}, "lack 1 of its tensors, model.norm.weight among them"),
    ],
)
def test_parts_that_do_not_fit_are_named(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    """A packed checkpoint with parts missing, of another shape, or left over is refused."""
    save_gptq(tmp_path, Gptq(symmetric=True, version=1, label="gptq"))
    change(tmp_path, **changed)
    with pytest.raises(HedgemarkError, match=re.escape(message)):
        load_model(find_model(str(tmp_path)), "float32", "cpu")


def to_float8(weight: Any, scale: Any) -> Any:
    return (weight / scale).to(torch.float8_e4m3fn)


def save_float8(folder: Path, form: str, *, scale_dtype: Any = torch.float32) -> Any:
    """Write a checkpoint of eight-bit floats and return the model that it stands for; `form` says how many weights share a scale."""
    model = tiny("odd")  # 72 and 96 columns: the last block is not full
    tensors = {name: weight.clone() for name, weight in model.state_dict().items() if "_proj." not in name}
    for name, layer in target_layers(model).items():
        weight = layer.weight.data
        rows, columns = {"tensor": weight.shape, "channel": (1, weight.shape[1]), "block": (16, 16)}[form]
        scales = torch.zeros(-(-weight.shape[0] // rows), -(-weight.shape[1] // columns))
        quantized, meant = torch.zeros(weight.shape, dtype=torch.float8_e4m3fn), torch.zeros(weight.shape)
        for i in range(scales.shape[0]):
            for j in range(scales.shape[1]):
                part = (slice(i * rows, (i + 1) * rows), slice(j * columns, (j + 1) * columns))
                scales[i, j] = (weight[part].abs().max() / 448).to(scale_dtype).float()
                quantized[part] = to_float8(weight[part], scales[i, j])
                meant[part] = quantized[part].float() * scales[i, j]
        layer.weight.data = meant
        tensors[f"{name}.weight"] = quantized
        kind = "weight_scale_inv" if form == "block" else "weight_scale"
        tensors[f"{name}.{kind}"] = (scales.reshape(()) if form == "tensor" else scales).to(scale_dtype)
        if form == "tensor":
            tensors[f"{name}.input_scale"] = torch.tensor(0.01)
    model.config.save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return model


@pytest.mark.parametrize(
    ("form", "settings", "level"),
    [
        ("tensor", {"quant_method": "modelopt", "quant_algo": "FP8", "producer": {"name": "modelopt"}}, "FP8"),
        ("tensor", {"quant_method": "fp8", "activation_scheme": "static"}, "FP8"),
        ("channel", {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}, "fbgemm_fp8"),
        ("channel", {"quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"}, "FP8_PER_CHANNEL_PER_TOKEN"),
        ("block", {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [16, 16], "fmt": "e4m3"}, "FP8_BLOCK"),
    ],
)
def test_eight_bit_floats_are_used_with_their_scales(form: str, settings: dict[str, Any], level: str, tmp_path: Path) -> None:
    """One scale for a weight, an output or a block, the last block cut off by the edge: each gives float8 times scale."""
    meant = save_float8(tmp_path, form)
    write_settings(tmp_path, settings)
    loaded = assert_same_weights(tmp_path, meant)
    assert stored_level(load_config(find_model(str(tmp_path)))) == level
    conditions = METHODS["checkpoint"].apply(loaded, parse_level(level), None, 0).conditions
    left_out = [] if form == "tensor" else ["rounding of activations"]  # whose scales kernels compute from the inputs
    assert (conditions["stored_as"], conditions.get("not_simulated", [])) == (settings["quant_method"], left_out)


@pytest.mark.parametrize("settings", [{"quant_method": "fp8"}, {"quant_method": "modelopt", "quant_algo": "FP8"}])
def test_scales_of_the_cache_are_said_though_the_config_is_silent(settings: dict[str, Any], tmp_path: Path) -> None:
    """Kernels round keys, values and inputs with the scales that they find; of these inputs alone are rounded here."""
    meant = save_float8(tmp_path, "tensor")
    change(tmp_path, **{f"model.layers.0.self_attn.{kind}_scale": torch.tensor(0.5) for kind in "kv"})
    write_settings(tmp_path, settings)
    loaded = assert_same_weights(tmp_path, meant)
    conditions = METHODS["checkpoint"].apply(loaded, parse_level("FP8"), None, 0).conditions
    assert conditions["not_simulated"] == ["rounding of the key/value cache"]


def test_scales_that_are_powers_of_two_are_read_as_such(tmp_path: Path) -> None:
    """DeepSeek-V3.1 stores block scales as eight-bit exponents (ue8m0)."""
    meant = save_float8(tmp_path, "block", scale_dtype=torch.float8_e8m0fnu)
    write_settings(tmp_path, {"quant_method": "fp8", "weight_block_size": [16, 16], "scale_fmt": "ue8m0"})
    assert_same_weights(tmp_path, meant)


@pytest.mark.parametrize(
    ("name", "settings", "level"),
    [
        (
            "hf_quant_config.json",
            {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}},
            "FP8",
        ),
        ("quantize_config.json", {"bits": 4, "group_size": GROUP, "desc_act": False, "sym": True}, "w4a16-g32"),
    ],
)
def test_settings_in_a_file_of_their_own_are_read(name: str, settings: dict[str, Any], level: str, tmp_path: Path) -> None:
    """NVIDIA's checkpoints and older ones of AutoGPTQ say nothing in config.json."""
    meant = save_float8(tmp_path, "tensor") if level == "FP8" else save_gptq(tmp_path, Gptq(symmetric=True, version=1, label=None))
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("quantization_config", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / name).write_text(json.dumps(settings))
    assert_same_weights(tmp_path, meant)
    assert stored_level(load_config(find_model(str(tmp_path)))) == level
    with pytest.raises(UsageError, match="already quantized"):
        METHODS["dense"].check_config(load_config(find_model(str(tmp_path))), parse_level("-"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({f"{FIRST}.weight_scale": None}, f"tensor {FIRST}.weight is stored as eight-bit floats with 0 scales instead of one"),
        ({f"{FIRST}.weight_scale": torch.ones(5)}, "do not fit it: (5,) torch.float32 for a weight of (72, 72)"),
        ({f"{FIRST}.weight_scale": torch.ones((), dtype=torch.uint8)}, "do not fit it: () torch.uint8"),
        ({f"{FIRST}.weight_scale_2": torch.ones(())}, f"no use for, {FIRST}.weight_scale_2 among them"),
        ({f"{FIRST}.pre_quant_scale": torch.ones(72)}, f"no use for, {FIRST}.pre_quant_scale among them"),
        ({f"{FIRST}.weight": torch.zeros(72, 72)}, f"no use for, {FIRST}.weight_scale among them"),  # a scale for a weight that has none
    ],
)
def test_scales_that_do_not_fit_are_named(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    """A float8 checkpoint with scales missing, of another shape, or left over is refused."""
    save_float8(tmp_path, "tensor")
    write_settings(tmp_path, {"quant_method": "modelopt", "quant_algo": "FP8"})
    change(tmp_path, **changed)
    with pytest.raises(HedgemarkError, match=re.escape(message)):
        load_model(find_model(str(tmp_path)), "float32", "cpu")


def plain_folder(folder: Path, **more: Any) -> Path:
    """Write a tiny model plainly, with these further or other tensors."""
    model = tiny()
    model.save_pretrained(folder)
    change(folder, **more)
    return folder


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({f"{FIRST}.lora_A.default.weight": torch.zeros(4, 64), f"{FIRST}.lora_B.default.weight": torch.zeros(64, 4)}, "have 2 tensors"),
        ({f"{FIRST}.bias": torch.zeros(64)}, f"no use for, {FIRST}.bias among them"),
        ({f"{FIRST}.weight_scale": torch.ones(64, 1)}, f"no use for, {FIRST}.weight_scale among them"),
        ({"model.layers.3.input_layernorm.weight": torch.ones(64)}, "no use for, model.layers.3.input_layernorm.weight among them"),
        ({f"{FIRST}.weight": torch.ones(64, 64, dtype=torch.int8)}, f"tensor {FIRST}.weight of "),
        ({f"{FIRST}.weight": torch.ones(64, 64).to(torch.float8_e4m3fn)}, "is stored as float8_e4m3fn, and the config does not say how"),
        ({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}, "holds other rotary frequencies than its config says"),
    ],
)
def test_what_would_be_left_out_is_refused(more: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Adapters, biases, scales, layers and rotary frequencies that transformers would leave out, and bare integers, are refused."""
    with pytest.raises(HedgemarkError, match=re.escape(message)):
        load_model(find_model(str(plain_folder(tmp_path, **more))), "float32", "cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_rotary_frequencies_that_agree_with_the_config_are_no_obstacle(dtype: Any, tmp_path: Path) -> None:
    """Llama 2's own files carry them, in half precision even."""
    frequencies = (1.0 / 10000.0 ** (torch.arange(0, 16, 2) / 16)).to(dtype)
    folder = plain_folder(tmp_path, **{f"model.layers.{i}.self_attn.rotary_emb.inv_freq": frequencies.clone() for i in range(3)})
    assert_same_weights(folder, tiny())


def test_a_head_beside_a_tied_embedding_is_the_head(tmp_path: Path) -> None:
    """Where the config ties embedding and head but the files hold two different ones, the head of the file is used."""
    head = torch.randn(128, 64)
    tiny("llama-tied").save_pretrained(tmp_path)
    change(tmp_path, **{"lm_head.weight": head})
    assert torch.equal(load_model(find_model(str(tmp_path)), "float32", "cpu").lm_head.weight, head)


def test_an_adapter_is_not_taken_for_its_base_model(tmp_path: Path) -> None:
    """A folder of peft, with or without the base model's config beside it, says what it is."""
    plain_folder(tmp_path / "m")
    (tmp_path / "m" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x"}))
    with pytest.raises(UsageError, match="holds an adapter"):
        load_config(find_model(str(tmp_path / "m")))
    (tmp_path / "m" / "config.json").unlink()
    with pytest.raises(UsageError, match="holds an adapter"):
        load_config(find_model(str(tmp_path / "m")))


def test_a_checkpoint_run_has_the_level_of_its_files(tmp_path: Path) -> None:
    """The level comes from the quantization settings; one given must agree with them in bits, and sparsity is counted."""
    save_standin(tmp_path / "plain")
    stored = save_standin(tmp_path / "packed", tie_word_embeddings=False)
    tensors = load_file(stored / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        scale = tensors[name].abs().max() / 448
        tensors |= {name: to_float8(tensors[name], scale), f"{name}_scale": scale}
    save_file(tensors, stored / "model.safetensors", metadata={"format": "pt"})
    write_settings(stored, {"quant_method": "modelopt", "quant_algo": "FP8"})

    def levels(model: str, *given: str) -> list[str]:
        request = Request(models=(str(tmp_path / model),), methods=("checkpoint",), levels=given, tasks=("urn",), limit=2)
        return [run.level.text for group in make_plan(request) for run in group.runs]

    assert levels("packed") == ["FP8"]
    assert levels("packed", "int8") == ["int8"]
    assert levels("plain") == ["-"]
    assert levels("plain", "exl3-4.25bpw") == ["exl3-4.25bpw"]
    with pytest.raises(UsageError, match="its own settings say FP8; leave --level out to use that"):
        levels("packed", "int4")
    with pytest.raises(UsageError, match="its weights are not stored as quantized ones"):
        levels("plain", "w4a16")
    asked = ["--task", "urn", "--limit", "2", "--method", "checkpoint", "--store", str(tmp_path / "store")]
    assert "[" not in CliRunner().invoke(main, ["--model", str(stored), *asked]).stdout
    assert [open_reader(str(tmp_path / "store")).catalog["level"].to_list()] == [["FP8"]]
    wrong = CliRunner().invoke(main, ["--model", str(tmp_path / "plain"), "--level", "0.5", *asked])
    assert "--level says 0.5, but 0.00% of the checkpoint's weights are zero" in wrong.stderr


@pytest.mark.parametrize(
    ("settings", "level"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "w4a16-g128"),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, "w8a16"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "dynamic": {"+:x": {"bits": 8}}}, "mixed"),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64}, "w4a16-g64"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "nf4"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "fp4"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True, "bnb_4bit_quant_type": "nf4"}, "int8"),
        ({"quant_method": "aqlm"}, "aqlm"),
    ],
)
def test_levels_of_settings(settings: dict[str, Any], level: str) -> None:
    """Settings amount to the level that our own methods have, or to a name."""
    config = CONFIGS["llama"]()
    config.quantization_config = settings
    assert parse_level(stored_level(config)).text == level


@pytest.mark.parametrize("scheme", ["W4A16", "W8A8", "FP8", "FP8_DYNAMIC", "FP8_BLOCK", "NVFP4", "NVFP4A16", "MXFP4", "MXFP8", "W4AFP8"])
def test_levels_of_llm_compressor_schemes(scheme: str) -> None:
    """The schemes that llm-compressor names come out under their names, integers as levels of our own methods."""
    from compressed_tensors.quantization import preset_name_to_scheme

    group = preset_name_to_scheme(scheme, ["Linear"]).model_dump(mode="json")
    config = CONFIGS["llama"]()
    config.quantization_config = {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}
    expected = {"W4A16": "w4a16-g128", "W8A8": "w8a8", "W4AFP8": "w4a8-g128"}.get(scheme, scheme)
    assert parse_level(stored_level(config)).text == expected
