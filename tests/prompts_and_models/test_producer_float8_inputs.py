"""Eight-bit floats whose inputs have a scale of their own in the files: rounded as the format defines, or refused by the layer's name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from producer_tiny import tiny
from safetensors.torch import load_file, save_file

from producer.methods import METHODS
from producer.methods.shared.linear_layers import target_layers
from producer.methods.shared.make_linear import make_linear
from producer.models.compressed_weights import round_expert_inputs, rounds_inputs
from producer.models.find import find_model
from producer.models.load import load_model
from schemas.errors import HedgemarkError
from schemas.levels import parse_level

pytestmark = pytest.mark.producer
FIRST = "model.layers.0.self_attn.q_proj"
MODELOPT = {"quant_method": "modelopt", "quant_algo": "FP8"}
FIXED = [MODELOPT, MODELOPT | {"quant_algo": "fp8"}, {"quant_method": "fp8", "activation_scheme": "static"}, {"quant_method": "fp8"}]


def stored(folder: Path, settings: dict[str, Any], layout: str = "llama", name: str = "input_scale") -> dict[str, float]:
    """Save a tiny model with a scale for each weight and another for its inputs, and return the latter by layer."""
    model, scales = make_linear(tiny(layout)), dict[str, float]()
    tensors = {full: value.clone() for full, value in model.state_dict().items() if "_proj." not in full}
    for number, (layer, module) in enumerate(target_layers(model).items()):
        scale = module.weight.abs().max().detach() / 448
        scales[layer] = 0.002 + 0.0001 * number
        tensors |= {
            f"{layer}.weight": (module.weight.detach() / scale).to(torch.float8_e4m3fn),
            f"{layer}.weight_scale": scale,
            f"{layer}.{name}": torch.tensor(scales[layer]),
        }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}), encoding="utf-8")
    return scales


def load(folder: Path) -> Any:
    return round_expert_inputs(load_model(find_model(str(folder)), "float32", "cpu"), make_linear)


@pytest.mark.parametrize("name", ["input_scale", "activation_scale"])
@pytest.mark.parametrize("settings", FIXED)
def test_a_layer_answers_for_rounded_inputs(settings: dict[str, Any], name: str, tmp_path: Path) -> None:
    """For float8(x / scale) * scale, and values beyond 448 scales are cut off. Transformers has the second name for the scale."""
    scales = stored(tmp_path, settings, name=name)
    model = load(tmp_path)
    check_layers(model, scales)
    conditions = METHODS["checkpoint"].apply(model, parse_level("FP8"), None, 0).conditions
    assert "not_simulated" not in conditions


def check_layers(model: Any, scales: dict[str, float]) -> None:
    """Compare every layer's answer to the same values with the formula."""
    for name, layer in target_layers(model).items():
        x, scale = torch.randn(2, 5, layer.weight.shape[1], generator=torch.Generator().manual_seed(3)) * 4, torch.tensor(scales[name])
        rounded = (x / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale
        assert torch.equal(layer(x), torch.nn.functional.linear(rounded, layer.weight, layer.bias)), name
        assert 0 < float((x.abs() > 448 * scale).float().mean()) < 1


def test_every_expert_rounds_with_its_own_scale(tmp_path: Path) -> None:
    """In a mixture too, whose experts lie in one tensor when transformers has read them."""
    scales = stored(tmp_path, MODELOPT, "qwen3_moe")
    model = load(tmp_path)
    assert len(target_layers(model)) == len(scales) == 48
    check_layers(model, scales)


@pytest.mark.parametrize("scale", [None, torch.tensor(0.0), torch.ones(2), torch.tensor(float("inf")), torch.tensor(1)])
def test_what_is_no_scale_of_inputs_is_refused(scale: Any, tmp_path: Path) -> None:
    """One layer without a scale, or with one that is no single positive number."""
    stored(tmp_path, MODELOPT)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[f"{FIRST}.input_scale"]
    more = {} if scale is None else {f"{FIRST}.input_scale": scale}
    save_file(tensors | more, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(HedgemarkError, match=f"layer {FIRST} should have one positive scale of its inputs, and the files hold"):
        load(tmp_path)


def test_a_dynamic_scheme_has_no_use_for_stored_scales(tmp_path: Path) -> None:
    """Kernels compute their own then; nothing is rounded here, which the run says."""
    stored(tmp_path, {"quant_method": "fp8", "activation_scheme": "dynamic"})
    model = load(tmp_path)
    assert not rounds_inputs(model)
    assert METHODS["checkpoint"].apply(model, parse_level("FP8"), None, 0).conditions["not_simulated"] == ["rounding of activations"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the library
def test_a_checkpoint_of_autoround_gives_its_own_answers(tmp_path: Path) -> None:
    """Made by the library as `fp8_static`: every layer rounds its inputs as the library's own function for the format does."""
    auto_round = pytest.importorskip("auto_round", reason="auto-round is not installed (extra [auto-round])")
    from auto_round.data_type.fp8 import quant_fp8_sym
    from producer_tiny import tiny_data
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("producer/reference/models/ref-s")
    model = tiny()
    model.name_or_path = model.config._name_or_path = str(tmp_path / "dense")  # no name that is looked up on the Hub
    data = [torch.tensor([row]) for row in tiny_data(8, 32).input_ids]
    rounding = auto_round.AutoRound(
        model, tokenizer, scheme="FP8_STATIC", iters=0, disable_opt_rtn=True, nsamples=8, seqlen=32, dataset=data, device_map="cpu"
    )
    try:
        rounding.quantize_and_save(str(tmp_path / "made"), format="auto_round")
    finally:
        torch.use_deterministic_algorithms(False)
    [folder] = {path.parent for path in (tmp_path / "made").rglob("config.json")}
    loaded, tensors = load(folder), load_file(folder / "model.safetensors")
    for name, layer in target_layers(loaded).items():
        scale = tensors[f"{name}.input_scale"].float()
        x = torch.randn(2, 5, layer.weight.shape[1], generator=torch.Generator().manual_seed(3))
        theirs, _, _ = quant_fp8_sym(x, group_size=0, tensor_max=448 * scale)
        assert torch.equal(layer(x), torch.nn.functional.linear(theirs, layer.weight, layer.bias)), name
