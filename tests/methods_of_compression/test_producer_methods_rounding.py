"""RTN against its formula in float64, and the check that weights lie on their grid."""

from dataclasses import replace
from typing import Any

import pytest
from producer_tiny import CONFIGS, logits, tiny, tiny_data

from producer.methods import METHODS
from producer.methods.shared.contract import NOTHING, Job
from producer.methods.shared.linear_layers import target_layers
from producer.methods.shared.llm_compressor import oneshot
from producer.methods.shared.make_linear import make_linear
from producer.methods.shared.quantization import ANY_FORMAT, WEIGHT_ONLY, scheme, simulate_rounding
from schemas.errors import PostConditionError
from schemas.levels import parse_level

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.producer


def rounded(weight: Any, bits: int, group: int) -> Any:
    """Asymmetric rounding of each group between its smallest and largest value, zero included, float64."""
    groups = weight.double().reshape(-1, group)
    low, high = groups.amin(1, keepdim=True).clamp(max=0), groups.amax(1, keepdim=True).clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    zero = (-low / scale).round()
    return (((groups / scale).round() + zero).clamp(0, 2**bits - 1) - zero).mul(scale).reshape(weight.shape)


GRIDS = [("w4a16-g32", 4, 32), ("w3a16-g8", 3, 8), ("w2a16-g16", 2, 16), ("w5a16-channel", 5, 0), ("w8a16", 8, 0)]


@pytest.mark.parametrize(("text", "bits", "group"), GRIDS)
def test_rtn_is_rounding_to_the_grid(text: str, bits: int, group: int) -> None:
    """Every weight equals the float64 reference; a weight halfway between two grid points may go either way."""
    model = tiny()
    weights = {name: layer.weight.clone() for name, layer in target_layers(model).items()}
    applied = METHODS["rtn"].apply(model, parse_level(text), None, 0)
    for name, layer in target_layers(applied.model).items():
        expected = rounded(weights[name], bits, group or layer.weight.shape[1])
        wrong = (layer.weight.double() - expected).abs() > 1e-6 * expected.abs().max()
        assert wrong.double().mean() < 1e-3, name


@pytest.mark.parametrize("layout", ["llama", "qwen3_moe"])
def test_folded_weights_give_the_library_s_logits_to_the_last_bit(layout: str) -> None:
    """llm-compressor rounds the weights anew in every forward pass; folded once they give the same bits, with nothing wrapped."""

    def recipe() -> list[Any]:
        from llmcompressor.modifiers.quantization import QuantizationModifier

        return [QuantizationModifier(**scheme(tiny(layout), parse_level("w4a16-g16")))]

    model, ids = oneshot(make_linear(tiny(layout)), recipe), tiny_data().input_ids
    layers = target_layers(model).values()
    wrapped = logits(model, ids)
    assert all("forward" in layer.__dict__ for layer in layers)
    simulate_rounding(model, parse_level("w4a16-g16"))
    assert torch.equal(logits(model, ids), wrapped)
    assert not any("forward" in layer.__dict__ or layer._forward_pre_hooks or layer._forward_hooks for layer in layers)


def test_bits_per_weight_count_scales_and_zero_points() -> None:
    """A 4-bit group of 32 carries a 16-bit scale and a 4-bit zero point: 4 + 20/32 bits a weight."""
    conditions = METHODS["rtn"].apply(tiny(), parse_level("w4a16-g32"), None, 0).conditions
    assert conditions["bits_per_weight"] == 4 + 20 / 32
    assert conditions["logit_change"] > 0


@pytest.mark.parametrize("layout", CONFIGS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rtn_takes_every_layout_and_dtype(layout: str, dtype: str) -> None:
    """Weights lie on the grid to the precision of their dtype, and the forward pass is a plain one again."""
    applied = METHODS["rtn"].apply(tiny(layout, dtype=getattr(torch, dtype)), parse_level("w4a16-g8"), tiny_data(), 0)
    assert applied.conditions["steps_off_grid"] < 0.2
    assert all("forward" not in layer.__dict__ for layer in target_layers(applied.model).values())
    assert torch.equal(applied.model.lm_head.weight, tiny(layout, dtype=getattr(torch, dtype)).lm_head.weight)


def test_more_bits_lie_closer_to_the_dense_model() -> None:
    """The logit change shrinks from 2 to 8 bits."""
    levels = [parse_level(f"w{bits}a16-g16") for bits in (2, 3, 4, 6, 8)]
    changes = [a.conditions["logit_change"] for a in METHODS["rtn"].sweep(tiny(), levels, None, 0)]
    assert changes == sorted(changes, reverse=True)


def attention_outputs(model: Any, data: Any) -> Any:
    """Outputs of the first attention, (token, column) float64."""
    seen: list[Any] = []
    hook = model.model.layers[0].self_attn.register_forward_hook(lambda _, args, output: seen.append(output[0].double().flatten(0, -2)))
    logits(model, data.input_ids)
    hook.remove()
    return torch.cat(seen)


def with_rounded_projections(scale: Any) -> Any:
    """A dense model whose first query, key and value weights are rounded after scaling their columns, and scaled back."""
    model = tiny()
    for part in "qkv":
        projection = getattr(model.model.layers[0].self_attn, f"{part}_proj")
        projection.weight.data = (rounded(projection.weight.data.double() * scale, 3, 32) / scale).float()
    return model


def test_awq_scales_are_never_worse_than_none() -> None:
    """With the scales AWQ found (read off the norm they went into) the attention's output error is at most that without scales."""
    model, data = tiny(), tiny_data()
    before, target = model.model.layers[0].input_layernorm.weight.detach().double().clone(), attention_outputs(model, data)
    after = METHODS["awq"].apply(model, parse_level("w3a16-g32"), data, 0).model.model.layers[0].input_layernorm.weight.double()
    scaled, plain = (attention_outputs(with_rounded_projections(s), data) for s in (before / after.detach(), torch.ones(64).double()))
    assert not torch.allclose(before, after)
    assert (scaled - target).square().mean() <= (1 + 1e-4) * (plain - target).square().mean()


def test_a_method_that_changes_nothing_violates_the_post_condition() -> None:
    """A level that compresses must move a logit, and one that does not must move none."""
    idle = replace(METHODS["rtn"], compress=lambda model, job: model, verify=lambda model, job: {})
    with pytest.raises(PostConditionError, match="nothing was compressed"):
        idle.apply(tiny(), parse_level("w4a16-g16"), None, 0)

    def disturb(model: Any, job: Job) -> Any:
        model.lm_head.weight.data *= 1.1
        return model

    with pytest.raises(PostConditionError, match="compresses nothing, yet logits changed"):
        replace(METHODS["dense"], compress=disturb).apply(tiny(), parse_level("-"), None, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("text", ["w8a16-g16", "w6a16-g16", "w4a16-g16"])
def test_weights_that_were_never_rounded_violate_the_post_condition(text: str, dtype: Any) -> None:
    """The dense weights of one layer, put back, stop the run at any number of bits, in 16 bits too."""
    method, level = METHODS["rtn"], parse_level(text)
    model = method.apply(tiny(dtype=dtype), level, None, 0).model
    model.model.layers[1].mlp.up_proj.weight.data = tiny(dtype=dtype).model.layers[1].mlp.up_proj.weight.data
    with pytest.raises(PostConditionError, match=r"layers.1.mlp.up_proj .* off its \d-bit grid"):
        method.verify(model, Job(level, {}, None, 0))


def test_a_weight_off_its_grid_violates_the_post_condition() -> None:
    """One weight moved by half a step stops the run, its layer named."""
    method, level = METHODS["rtn"], parse_level("w4a16-g16")
    model = method.apply(tiny(), level, None, 0).model
    layer = model.model.layers[2].self_attn.o_proj
    layer.weight.data[3, 5] += 0.5 * layer.weight_scale[3, 0]
    with pytest.raises(PostConditionError, match=r"layers.2.self_attn.o_proj .* off its 4-bit grid"):
        method.verify(model, Job(level, {}, None, 0))


def test_a_method_that_leaves_no_grid_is_told_what_the_check_needs() -> None:
    """Weights rounded by a method itself, without the scales of their grid, cannot be checked, and the message says what is missing."""

    def halve_steps(model: Any, job: Job) -> Any:
        for layer in target_layers(model).values():
            layer.weight.data = (layer.weight.data * 2).round() / 2
        return model

    settings = METHODS["rtn"].settings_for
    for kind, text in ((WEIGHT_ONLY, "w4a16-g16"), (ANY_FORMAT, "w4a16-g16"), (ANY_FORMAT, "w8a8-fp8")):
        method = kind(name="halves", paper="-", needs=NOTHING, compress=halve_steps, settings_for=settings)
        with pytest.raises(PostConditionError, match=r"layer \S+ has no weight_scale and no weight_\w+, so its grid cannot be checked"):
            method.apply(tiny(), parse_level(text), None, 0)
