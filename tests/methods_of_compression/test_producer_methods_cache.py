"""Rounded keys and values against references written out from the definitions of the formats, and through both paths."""

import math
from typing import Any

import numpy as np
import pytest
from producer_tiny import CONFIGS, logits, tiny, tiny_data, tiny_level
from test_producer_methods_formats import E2M1, E4M3, closest

from producer.methods import METHODS
from producer.methods.shared.cache_rounding import no_cache, round_cache, round_values
from producer.request.request import Request, request_of
from producer.run.levels import choose_levels
from producer.sweep.cells import split
from schemas.errors import PostConditionError, UsageError
from schemas.levels import CACHE_BITS, parse_level

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.producer


def by_definition(head: list[float], name: str) -> list[float]:
    """Return one head of one token after rounding, number by number."""
    if name == "fp8":
        return [closest(value, E4M3) for value in head]
    if name == "nvfp4":
        groups = [head[start : start + 16] for start in range(0, len(head), 16)]
        scales = [closest(max(map(abs, group)) / 6, E4M3) for group in groups]
        return [
            closest(value / scale, E2M1) * scale if scale else 0.0 for group, scale in zip(groups, scales, strict=True) for value in group
        ]
    most = 2 ** CACHE_BITS[name] - 1
    lowest = float(np.float16(min(head)))
    step = float(np.float16(max((max(head) - lowest) / most, float(np.finfo(np.float16).tiny))))
    return [min(max(round((value - lowest) / step), 0), most) * step + lowest for value in head]


@pytest.mark.parametrize("name", CACHE_BITS)
def test_a_head_is_rounded_as_its_format_says(name: str) -> None:
    """Ordinary, constant, zero, tiny and huge heads: every number is the one that the definition gives."""
    rng = np.random.default_rng(0)
    heads = [*rng.normal(size=(20, 32)), np.full(32, 0.75), np.zeros(32), rng.normal(size=32) * 1e-4, rng.normal(size=32) * 900]
    x = torch.tensor(np.array(heads), dtype=torch.float32)[None, None]
    expected = np.array([by_definition(head, name) for head in x[0, 0].tolist()])
    assert np.allclose(round_values(x, name)[0, 0].double().numpy(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", CACHE_BITS)
def test_rounding_one_token_does_not_depend_on_others(name: str) -> None:
    """Batches and shared prefixes round the same numbers."""
    x = torch.randn(3, 2, 5, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(round_values(x, name)[1:2, :, 2:3], round_values(x[1:2, :, 2:3], name))


def rounded_attention(name: str, rotation: Any = None) -> Any:
    """Return transformers' plain attention, with rounded keys and values."""
    from transformers.models.llama.modeling_llama import eager_attention_forward

    def attend(module: Any, query: Any, key: Any, value: Any, *more: Any, **named: Any) -> Any:
        if rotation is not None:
            key, query = key.double() @ rotation, query.double() @ rotation
            key, query = round_values(key, name).float(), query.float()
        else:
            key = round_values(key, name)
        return eager_attention_forward(module, query, key, round_values(value, name), *more, **named)

    return attend


@pytest.mark.parametrize("name", CACHE_BITS)
@pytest.mark.parametrize("rotated", [False, True])
def test_a_model_with_a_rounded_cache_attends_to_rounded_keys_and_values(name: str, rotated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The logits are those of an attention that rounds after the rotary embedding; rotated, keys and queries are in the turned frame."""
    ids = torch.arange(2, 42).reshape(2, 20)
    model, reference = tiny("llama"), tiny("llama")
    size = round_cache(model, name, rotated=rotated)
    rotation = model.model.layers[0].self_attn._forward_pre_hooks[next(iter(model.model.layers[0].self_attn._forward_pre_hooks))].rotation
    reference.set_attn_implementation("eager")
    monkeypatch.setattr("transformers.models.llama.modeling_llama.eager_attention_forward", rounded_attention(name, rotation))
    assert torch.allclose(logits(model, ids), logits(reference, ids), atol=2e-5)
    assert not torch.allclose(logits(model, ids), logits(tiny("llama"), ids), atol=1e-4)
    extra = {"fp8": 0.0, "nvfp4": 8 / 16}.get(name, 32 / 16)  # heads are 16 wide
    assert size.cache_bits_per_value == CACHE_BITS[name] + extra
    assert size.cache_bytes_per_token == 3 * 2 * 2 * 16 * size.cache_bits_per_value / 8  # layers, keys and values, heads, width


@pytest.mark.parametrize("name", CACHE_BITS)
def test_the_forward_pass_with_and_without_a_cache_agree(name: str) -> None:
    """Answering from a cache in two pieces gives the logits of one pass."""
    model, ids = tiny("qwen3"), torch.arange(3, 27).reshape(1, 24)
    round_cache(model, name, rotated=False)
    with torch.no_grad():
        first = model(input_ids=ids[:, :15], use_cache=True)
        second = model(input_ids=ids[:, 15:], past_key_values=first.past_key_values, use_cache=True)
    assert torch.allclose(torch.cat([first.logits, second.logits], 1), logits(model, ids), atol=1e-5)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_every_method_takes_a_rounded_cache(architecture: str) -> None:
    """The weights are those of the level without it, the settings and the measurements say how keys and values are stored."""
    level = parse_level("w4a16-channel+kv-int8")
    applied = METHODS["rtn"].apply(tiny(architecture), level, None, 0)
    plain = METHODS["rtn"].apply(tiny(architecture), level.without_cache, None, 0)
    assert all(torch.equal(one, other) for one, other in zip(applied.model.parameters(), plain.model.parameters(), strict=True))
    assert applied.settings == {**plain.settings, "kv_cache": "int8", "kv_cache_bits": 8, "kv_scales": applied.settings["kv_scales"]}
    assert applied.conditions["cache_bits_per_value"] > 8 and "cache_bits_per_value" not in plain.conditions
    assert not torch.equal(logits(applied.model, [[5, 6, 7]]), logits(plain.model, [[5, 6, 7]]))


def test_a_rotated_model_rounds_rotated_keys() -> None:
    """QuaRot at w4a4 with a cache of four bits records its R3, and rounds keys in the turned frame."""
    method, level = METHODS["quarot"], parse_level("w4a4+kv-int4")
    applied = method.apply(tiny("llama"), level, tiny_data(), 0)
    plain = method.apply(tiny("llama"), tiny_level("quarot"), tiny_data(), 0)
    assert applied.settings["kv_rotation"] == "Hadamard R3" and applied.settings["kv_cache_bits"] == 4
    assert applied.conditions["logit_change"] != plain.conditions["logit_change"]


def test_the_dense_model_with_a_rounded_cache_is_a_method() -> None:
    """Its weights are untouched, its levels are the formats, and what is no format is refused."""
    dense, method = tiny("llama"), METHODS["kv"]
    applied = method.apply(tiny("llama"), parse_level("int4"), None, 0)
    assert all(torch.equal(one, other) for one, other in zip(applied.model.parameters(), dense.parameters(), strict=True))
    assert applied.settings["kv_cache"] == "int4" and applied.conditions["logit_change"] > 0
    with pytest.raises(UsageError, match="no level 'w4a16': it is no format"):
        method.check_level(parse_level("w4a16"))
    for name, text in (("dense", "kv-fp8"), ("kv", "int8+kv-fp8")):  # a dense run of that level was stored, with nothing rounded
        with pytest.raises(UsageError, match="rounded by method kv"):
            METHODS[name].check_level(parse_level(text))
        with pytest.raises(UsageError, match="rounded by method kv"):
            choose_levels([name], [text])


def test_what_caches_no_keys_and_values_is_refused() -> None:
    """Latent attention and heads that 16 does not divide by their config; layers whose keys pass by the cache when it is tried."""
    from transformers import DeepseekV3Config, LlamaConfig, MambaConfig

    assert "one compressed vector per token" in no_cache(DeepseekV3Config(), "fp8")
    assert "groups of 16" in no_cache(LlamaConfig(hidden_size=72, num_attention_heads=3, head_dim=24), "nvfp4")
    assert "its model type is 'mamba', which has no attention" in no_cache(MambaConfig(num_hidden_layers=1), "fp8")
    assert not no_cache(LlamaConfig(num_hidden_layers=1), "nvfp4")
    model = tiny("llama")
    attention = model.model.layers[1].self_attn
    plain = type(attention).forward
    attention.forward = lambda *arguments, past_key_values=None, **named: plain(attention, *arguments, **named)
    with pytest.raises(PostConditionError, match=r"layers.1.self_attn do not pass through the cache"):
        round_cache(model, "fp8", rotated=False)


def test_levels_with_a_cache_are_read_and_ordered() -> None:
    """The suffix is part of the level; bits of weights, activations and cache add up; a fraction beside bits has no position."""
    level = parse_level("W4A16-channel+KV-INT8")
    assert (level.text, level.cache, level.weight_bits, level.without_cache.text) == ("w4a16+kv-int8", "int8", 4, "w4a16")
    assert parse_level(level.text) == level and level.strength == level.without_cache.strength + 8
    assert (parse_level("kv-fp8").kind, parse_level("kv-fp8").strength, parse_level("kv-fp8").without_cache.text) == ("none", 8, "-")
    assert math.isinf(parse_level("0.5+kv-int4").strength)
    assert parse_level("Q4_K_M+kv-fp8").without_cache.text == "Q4_K_M"
    assert (parse_level("odd+kv-name").kind, parse_level("odd+kv-name").cache) == ("name", "")
    with pytest.raises(UsageError, match="states the format"):
        parse_level("w4a16+kv-int8+kv-int4")


def test_kv_options_become_levels() -> None:
    """With the dense model they are levels of method kv; other methods take each of their levels with each format."""
    assert {name: [level.text for level in levels] for name, levels in choose_levels(["dense"], [], ["fp8", "int4"]).items()} == {
        "kv": ["fp8", "int4"]
    }
    request = request_of({"models": ("ref-s",), "methods": ("dense", "rtn"), "levels": ("w4a16", "w8a16"), "caches": ("int8", "fp8")})
    names = [command.name for command in split([request], "store")]
    assert names[:2] == ["ref-s kv int8", "ref-s kv fp8"]
    assert names[2:] == [f"ref-s rtn {level} kv-{cache}" for level in ("w4a16", "w8a16") for cache in ("int8", "fp8")]
    for options, sentence in (
        ({"caches": ("int3",)}, "unknown --kv format 'int3'; did you mean int8\\? known: fp8, int8, int4, nvfp4"),
        ({"caches": ("int8",), "levels": ("w4a16",)}, "level 'w4a16' is no format of cached keys and values"),
    ):
        with pytest.raises(UsageError, match=sentence):
            split([Request(models=("ref-s",), **options)], "store")
    with pytest.raises(UsageError, match=r"--kv .* has no effect without --backend transformers"):
        request_of({"models": ("ref-s",), "caches": ("fp8",), "backend": "vllm"})
