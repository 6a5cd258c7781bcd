"""A checkpoint that llm-compressor saved gives, read back and run as found, the logits of the run in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from producer_packed import packed_folder
from producer_prefill import OPTIONS, plain, run, some_prompts
from producer_tiny import CONFIGS, SIZES, logits, tiny, tiny_data
from transformers import LlamaConfig

from producer.backends import BACKENDS
from producer.methods import METHODS
from producer.methods.gptq import gptq_modifier
from producer.methods.shared.llm_compressor import oneshot, quiet
from producer.methods.shared.make_linear import make_linear
from producer.methods.shared.quantization import scheme
from producer.models.compressed_weights import round_expert_inputs
from producer.models.find import ModelFiles, find_model
from producer.models.load import load_model
from producer.models.stored_as import stored_level
from schemas.errors import UsageError
from schemas.levels import parse_level

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.producer
LEVEL = parse_level("w4a16-g16")


def rtn_recipe() -> list[Any]:
    from llmcompressor.modifiers.quantization import QuantizationModifier

    return [QuantizationModifier(**scheme(tiny(), LEVEL))]


def save(model: Any, folder: Path) -> None:
    """Save a quantized model compressed, as llm-compressor does; `oneshot` leaves models without what they do that by."""
    with quiet():
        from llmcompressor.transformers.compression.compressed_tensors_utils import modify_save_pretrained

        modify_save_pretrained(model)
        model.save_pretrained(folder, save_compressed=True)


# llm-compressor saves through accelerate's offloading, which makes transformers warn about memory, whatever the model's size.
@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules:UserWarning")
@pytest.mark.parametrize("name", ["rtn", "gptq"])
def test_a_saved_checkpoint_gives_the_logits_of_memory(name: str, tmp_path: Path) -> None:
    """Saved compressed by llm-compressor and read by transformers, the logits agree to 1e-4 and the format is recorded."""
    data = tiny_data(32)
    saved = oneshot(tiny(), {"rtn": rtn_recipe, "gptq": lambda: [gptq_modifier(tiny(), LEVEL)]}[name], None if name == "rtn" else data)
    save(saved, tmp_path)
    loaded = load_model(ModelFiles("artifact", tmp_path), "float32", "cpu")
    METHODS["checkpoint"].check_config(loaded.config, parse_level("-"))
    found = METHODS["checkpoint"].apply(loaded, parse_level("-"), None, 0)
    in_memory = METHODS[name].apply(tiny(), LEVEL, data, 0).model
    assert found.conditions["stored_as"] == "compressed-tensors"
    assert float((logits(found.model, data.input_ids) - logits(in_memory, data.input_ids)).abs().max()) < 1e-4


@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules:UserWarning")
@pytest.mark.parametrize("layout", [{"workers": 3}, {"streamed": True, "wave_tokens": 10_000}])
def test_rounded_inputs_of_a_stored_artifact_stay_rounded(layout: dict[str, Any], tmp_path: Path) -> None:
    """Eight-bit weights and inputs, as shipped, give the engine the logits of the artifact in memory, not those of its weights alone."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor.modifiers.quantization import QuantizationModifier

    eight = {"num_bits": 8, "type": "int", "symmetric": True}
    weights = QuantizationArgs(**eight, strategy="channel", observer="memoryless_minmax")
    inputs = QuantizationArgs(**eight, strategy="token", dynamic=True)
    groups = {"all": QuantizationScheme(targets=["Linear"], weights=weights, input_activations=inputs)}
    saved = oneshot(tiny(), lambda: [QuantizationModifier(config_groups=groups, ignore=["lm_head"])], None)
    prompts = some_prompts()
    expected = plain(saved, prompts)[:, OPTIONS]
    save(saved, tmp_path)
    found = run(load_model(ModelFiles("artifact", tmp_path), "float32", "cpu"), prompts, **layout).logits
    np.testing.assert_allclose(found, expected, atol=2e-2)
    assert np.abs(found - plain(tiny(), prompts)[:, OPTIONS]).max() > 5 * np.abs(found - expected).max()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules:UserWarning")
@pytest.mark.parametrize(
    ("preset", "level", "rounding"),
    [
        ("W4A16_ASYM", "w4a16-g128", 0.0), ("W8A16", "w8a16-g128", 0.0), ("W8A8", "w8a8", 0.0), ("W4AFP8", "w4a8-g128", 0.0),
        ("FP8", "FP8", 0.0), ("FP8_DYNAMIC", "FP8_DYNAMIC", 0.0), ("FP8_BLOCK", "FP8_BLOCK", 0.0), ("MXFP4", "MXFP4", 0.0),
        ("MXFP4A16", "MXFP4A16", 0.0), ("NVFP4", "NVFP4", 2**-8), ("NVFP4A16", "NVFP4A16", 2**-8),
    ],
)  # fmt: skip
def test_every_preset_of_llm_compressor_is_read_as_its_library_has_it(
    preset: str, level: str, rounding: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights are the library's own rounded ones and float32; it unpacks NVFP4 to bfloat16, of which 2^-8 is left."""
    from compressed_tensors.quantization.lifecycle.forward import forward_quantize
    from llmcompressor.modifiers.quantization import QuantizationModifier

    monkeypatch.setitem(CONFIGS, "wide", lambda: LlamaConfig(**(SIZES | {"hidden_size": 128, "intermediate_size": 256})))
    data = tiny_data(4)
    saved = oneshot(tiny("wide"), lambda: [QuantizationModifier(targets="Linear", scheme=preset, ignore=["lm_head"])], data)
    layers = {name: layer for name, layer in saved.named_modules() if getattr(layer, "quantization_scheme", None) is not None}
    meant = {name: forward_quantize(layer, layer.weight, "weight", layer.quantization_scheme.weights) for name, layer in layers.items()}
    expected = logits(saved, data.input_ids)
    save(saved, tmp_path)
    loaded = load_model(ModelFiles("artifact", tmp_path), "float32", "cpu")
    assert stored_level(loaded.config) == level
    for name, weight in meant.items():
        found = loaded.get_submodule(name).weight
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, weight, rtol=rounding, atol=0)
    if not rounding:
        assert torch.equal(logits(loaded, data.input_ids), expected)


@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules:UserWarning")
@pytest.mark.parametrize("preset", ["W4A16", "W8A8", "FP8", "FP8_DYNAMIC", "MXFP4", "NVFP4"])
def test_experts_keep_their_scales_and_the_rounding_of_their_inputs(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mixture of experts that llm-compressor saved has its logits; transformers drops scales of experts and rounds no inputs of theirs.

    The library takes one scale for all tokens that reach an expert where its scheme says one per token, so it is asked token by token.
    """
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from transformers import Qwen3MoeConfig

    sizes = SIZES | {"hidden_size": 128, "moe_intermediate_size": 128, "num_experts": 4, "num_experts_per_tok": 2}
    monkeypatch.setitem(CONFIGS, "wide-moe", lambda: Qwen3MoeConfig(**sizes))
    data = tiny_data(4)
    recipe = [QuantizationModifier(targets="Linear", scheme=preset, ignore=["lm_head", "re:.*mlp.gate$"])]
    saved = oneshot(make_linear(tiny("wide-moe")), lambda: recipe, data)
    tokens = range(8, 56)
    expected = torch.cat([logits(saved, [[token]]) for token in tokens])
    save(saved, tmp_path)
    loaded = load_model(ModelFiles("artifact", tmp_path), "float32", "cpu")
    read = logits(round_expert_inputs(loaded, make_linear), [[token] for token in tokens])
    gaps = (read - expected).abs().amax((1, 2))
    assert float((gaps < 1e-4).float().mean()) > 0.8  # for an input between two steps, the order of sums decides to which it is rounded
    assert float((logits(tiny("wide-moe"), [[token] for token in tokens]) - expected).abs().max()) > 1e-2


def test_a_plain_checkpoint_is_described(tmp_path: Path) -> None:
    """Weights pruned and saved plainly are run as found, with the zeros they have."""
    model = METHODS["magnitude"].apply(tiny(), parse_level("0.5"), None, 0).model
    conditions = METHODS["checkpoint"].apply(model, parse_level("-"), None, 0).conditions
    assert conditions["stored_as"] == "plain weights"
    assert conditions["sparsity"] == 0.5


def test_quantized_weights_are_not_compressed_again() -> None:
    """A method other than checkpoint refuses a model whose config says that its weights are quantized."""
    config = tiny().config
    config.quantization_config = {"quant_method": "gptq"}
    with pytest.raises(UsageError, match="already quantized \\(gptq\\); run it unchanged with --method checkpoint"):
        METHODS["wanda"].check_config(config, parse_level("0.5"))
    METHODS["checkpoint"].check_config(config, parse_level("-"))


@pytest.mark.parametrize(
    "quantization", [{"quant_method": "gptq", "bits": 4}, {"quant_method": "gptq", "bits": 8}, {"quant_method": "awq", "bits": 4}]
)
def test_packed_checkpoints_are_read_without_their_kernels(quantization: dict[str, Any], tmp_path: Path) -> None:
    """A GPTQ (with reordered columns) or AWQ checkpoint gives the logits of scale * (integer - zero point), and says what it is."""
    plain, ids = packed_folder(tmp_path, quantization | {"group_size": 16}), tiny_data(4).input_ids
    loaded = load_model(find_model(str(tmp_path)), "float32", "cpu")
    applied = METHODS["checkpoint"].apply(loaded, parse_level("-"), None, 0)
    assert torch.equal(logits(applied.model, ids), logits(plain, ids))
    assert applied.conditions["stored_as"] == quantization["quant_method"]


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ({"quant_method": "gptq", "bits": 5}, "a gptq checkpoint of 5 bits cannot be unpacked; bits that can: 2, 3, 4, 8"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "of layout 'marlin' cannot be unpacked"),
        ({"quant_method": "gptq", "bits": 4, "format": "gptq_p"}, "of layout 'gptq_p' cannot be unpacked"),
        ({"quant_method": "gptq", "bits": 4, "rotation": "hadamard"}, "with 'rotation' in its quantization settings"),
        ({"quant_method": "bitsandbytes"}, "must say either load_in_4bit or load_in_8bit"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf3"}, "of type 'nf3' cannot be dequantized"),
        *(({"quant_method": kind}, f"quantized as '{kind}', which cannot be") for kind in ("aqlm", "mxfp4", "quip")),
        ({"bits": 4}, "quantized as 'an unnamed format'"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 32}, "a modelopt checkpoint of algorithm 'NVFP4' cannot be"),
        ({"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}, "a modelopt checkpoint of algorithm 'W4A8_AWQ' cannot be dequantized"),
        ({"quant_method": "compressed-tensors", "transform_config": {"config_groups": {"R1": {}}}}, "with rotations"),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"output_activations": {"num_bits": 8}}}},
            "whose layers round their outputs is not simulated",
        ),
        ({"quant_method": "compressed-tensors", "quantization_status": "frozen"}, "of status 'frozen' holds weights that are not rounded"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "awq checkpoint of layout 'gemv' cannot be unpacked"),
    ],
)
def test_what_cannot_be_dequantized_is_refused_from_its_config(quantization: dict[str, Any], message: str) -> None:
    """Formats, layouts and bits that cannot be read are refused by name before weights are loaded."""
    config = tiny().config
    config.quantization_config = quantization
    with pytest.raises(UsageError, match=message):
        BACKENDS["transformers"].check(config, ["checkpoint"])
