"""A checkpoint that llm-compressor saved gives, read back and run as found, the logits of the run in memory."""

from pathlib import Path
from typing import Any

import pytest
from producer_tiny import logits, tiny, tiny_data

from producer.methods import METHODS
from producer.methods.gptq import gptq_modifier
from producer.methods.quantization import scheme
from producer.methods.upstream import oneshot, quiet
from schemas.errors import UsageError
from schemas.levels import parse_level

pytestmark = pytest.mark.producer
LEVEL = parse_level("w4a16-g16")


def rtn_recipe() -> list[Any]:
    from llmcompressor.modifiers.quantization import QuantizationModifier

    return [QuantizationModifier(**scheme(LEVEL))]


# llm-compressor saves through accelerate's offloading, which makes transformers warn about memory, whatever the model's size.
@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules:UserWarning")
@pytest.mark.parametrize("name", ["rtn", "gptq"])
def test_a_saved_checkpoint_gives_the_logits_of_memory(name: str, tmp_path: Path) -> None:
    """Saved compressed by llm-compressor and read by transformers, the logits agree to 1e-4 and the format is recorded."""
    from transformers import AutoModelForCausalLM

    data = tiny_data(32)
    saved = oneshot(tiny(), {"rtn": rtn_recipe, "gptq": lambda: [gptq_modifier(LEVEL)]}[name], None if name == "rtn" else data)
    with quiet():
        saved.save_pretrained(tmp_path, save_compressed=True)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    METHODS["checkpoint"].check_config(loaded.config, parse_level("-"))
    found = METHODS["checkpoint"].apply(loaded, parse_level("-"), None, 0)
    in_memory = METHODS[name].apply(tiny(), LEVEL, data, 0).model
    assert found.conditions["stored_as"] == "compressed-tensors"
    assert float((logits(found.model, data.input_ids) - logits(in_memory, data.input_ids)).abs().max()) < 1e-4


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
    with pytest.raises(UsageError, match="already quantized \\(gptq\\); run it as found with --method checkpoint"):
        METHODS["wanda"].check_config(config, parse_level("0.5"))
    METHODS["checkpoint"].check_config(config, parse_level("-"))
