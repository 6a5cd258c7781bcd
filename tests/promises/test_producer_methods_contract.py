"""Every method keeps the promises of contract.py: the tests run over the dict, so a new method is tested the moment it is listed."""

import subprocess
import sys
from typing import Any

import pytest

from producer.methods import METHODS
from schemas.digest import canonical_json
from schemas.errors import UsageError
from schemas.levels import parse_level


def llama(intermediate_size: int = 160) -> Any:
    """Return the config of a small Llama."""
    from transformers import LlamaConfig

    sizes = {"hidden_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 128}
    return LlamaConfig(**sizes, intermediate_size=intermediate_size)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_describes_itself(name: str) -> None:
    """Every method has the name it is listed under, a paper, a kind, levels and models, and its default is one of its levels."""
    method = METHODS[name]
    assert method.name == name
    assert all([method.kind, method.paper, method.levels, method.needs, method.models])
    method.check_level(parse_level(method.default_level))


@pytest.mark.parametrize("name", METHODS)
def test_settings_are_known_before_loading(name: str) -> None:
    """The settings of a level can be put in a run key, twice the same."""
    level = parse_level(METHODS[name].default_level)
    assert canonical_json(METHODS[name].settings_for(level)) == canonical_json(METHODS[name].settings_for(level))


@pytest.mark.parametrize("name", METHODS)
def test_a_model_without_linear_layers_is_refused_from_its_config(name: str) -> None:
    """XLNet's attention is in tensors with three dimensions, and methods say so; those that do not compress leave it to the backend."""
    from transformers import XLNetConfig

    config, level = XLNetConfig(vocab_size=128, d_model=64, n_layer=2, n_head=4, d_inner=96), parse_level(METHODS[name].default_level)
    if level.kind == "none":
        METHODS[name].check_config(config, level)
        return
    with pytest.raises(UsageError, match=rf"'{name}'.*'some-xlnet'.*(type is 'xlnet'|out of reach: rel_attn.q, rel_attn.k)"):
        METHODS[name].check_config(config, level, "some-xlnet")


def refused(name: str, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        METHODS[name].check_level(parse_level(text))
    return str(caught.value)


@pytest.mark.parametrize("name", ["rtn", "gptq", "awq"])
def test_weight_only_methods_refuse_activation_levels(name: str) -> None:
    """w4a4 is no level of a method that quantizes weights only, and the message names methods that have it."""
    assert "smoothquant" in refused(name, "w4a4")


@pytest.mark.parametrize("name", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("text", ["1.0", "-0.1", "w4a16", "0:4", "4:4"])
def test_pruning_methods_refuse_impossible_levels(name: str, text: str) -> None:
    """A fraction outside [0, 1), a number of bits, or an n:m that keeps nothing or everything is refused, quoting the level."""
    assert repr(text) in refused(name, text)


@pytest.mark.parametrize("text", ["w0", "w0a16", "w1a16", "w9a16", "w17a16", "0.5"])
def test_rtn_refuses_impossible_bits(text: str) -> None:
    """Weights have 2 to 8 bits."""
    assert repr(text) in refused("rtn", text)


@pytest.mark.parametrize("name", ["smoothquant", "quarot", "spinquant"])
@pytest.mark.parametrize("text", ["w4a16", "w8a16-g32", "0.5", "2:4", "w1a1"])
def test_activation_methods_refuse_weight_only_levels(name: str, text: str) -> None:
    """Methods that round activations need a number of bits for them."""
    assert repr(text) in refused(name, text)


def test_the_dense_model_has_no_level() -> None:
    """A dense model with a level is a mistake."""
    assert "no level" in refused("dense", "0.5")


def test_a_width_without_a_hadamard_matrix_is_refused() -> None:
    """No Hadamard matrix of size 268 (4 x 67) is known here; the message names size and width."""
    with pytest.raises(UsageError, match=r"no Hadamard matrix of size 268 \(mlp.down_proj\) is known"):
        METHODS["quarot"].check_config(llama(268), parse_level("w4a4"))


def test_a_group_that_divides_no_layer_names_layer_and_divisors() -> None:
    """Group 64 does not divide 96 columns: the message names the layer and the sizes that divide every layer (96, 160)."""
    with pytest.raises(UsageError, match=r"64 does not divide the 96 columns of self_attn.q_proj .*: 2, 4, 8, 16, 32$"):
        METHODS["rtn"].check_config(llama(), parse_level("w4a16-g64"))


def test_a_pattern_that_divides_no_layer_is_refused() -> None:
    """2:3 fits 96 columns but not the 160 of the MLP."""
    with pytest.raises(UsageError, match=r"3 does not divide the 160 columns of mlp.down_proj"):
        METHODS["wanda"].check_config(llama(), parse_level("2:3"))


def test_listing_the_methods_is_instant() -> None:
    """Importing the dict imports neither torch nor transformers nor llm-compressor."""
    imports = "import sys, producer.methods, producer.methods.shared.compression_data"
    code = f"{imports}; print({{'torch', 'transformers', 'llmcompressor'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


@pytest.mark.parametrize("text", ["-", "Q4_K_M", "FP8_BLOCK", "exl3-4.25bpw", "w4a16-g128"])
def test_a_checkpoint_may_be_given_a_name_as_level(text: str) -> None:
    """What a file is called tells its runs apart and orders them; other methods refuse names."""
    METHODS["checkpoint"].check_level(parse_level(text))
    assert "has no level 'Q4_K_M'" in refused("rtn", "Q4_K_M") and "has no level 'int4'" in refused("wanda", "int4")
