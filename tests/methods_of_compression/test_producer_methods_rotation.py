"""Rotations preserve the function, learned ones stay orthogonal and lower the loss; smoothing preserves the function too."""

from typing import Any

import pytest
from producer_tiny import CONFIGS, logits, tiny, tiny_data

from producer.methods import METHODS
from producer.methods.shared.contract import Job
from producer.methods.shared.float64_transform import transform
from producer.methods.shared.linear_layers import target_layers
from producer.methods.shared.llm_compressor import oneshot
from producer.methods.shared.make_linear import make_linear
from producer.methods.shared.quantization import RoundInput
from producer.methods.shared.rotated_forward import RoundStraightThrough, dense_states, rotated
from producer.methods.shared.rotation import Rotation, random_rotations
from producer.methods.smoothquant import smoothing_modifier
from producer.methods.spinquant import CayleySGD, cayley, learn, orthogonality
from schemas.errors import PostConditionError
from schemas.levels import parse_level

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.producer
W4A4 = parse_level("w4a4")


@pytest.fixture
def float64_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """RMSNorm in the dtype of its input: transformers' own goes through float32, which hides errors below 1e-7."""
    from transformers.models.llama import modeling_llama
    from transformers.models.mistral import modeling_mistral
    from transformers.models.qwen2 import modeling_qwen2
    from transformers.models.qwen3 import modeling_qwen3
    from transformers.models.qwen3_moe import modeling_qwen3_moe

    def forward(norm: Any, x: Any) -> Any:
        return norm.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.variance_epsilon)

    modules = {"Llama": modeling_llama, "Mistral": modeling_mistral, "Qwen2": modeling_qwen2}
    for name, module in (modules | {"Qwen3": modeling_qwen3, "Qwen3Moe": modeling_qwen3_moe}).items():
        monkeypatch.setattr(getattr(module, f"{name}RMSNorm"), "forward", forward)


def largest_change(model: Any, before: Any, ids: Any) -> float:
    return float((logits(model, ids) - before).abs().max())


@pytest.mark.usefixtures("float64_norms")
@pytest.mark.parametrize("layout", CONFIGS)
@pytest.mark.parametrize(("dtype", "allowed"), [("float64", 1e-10), ("float32", 1e-5)])
def test_rotation_alone_preserves_the_function(layout: str, dtype: str, allowed: float) -> None:
    """R1, R2 and R4 with fused norms change no logit by more than rounding, in every layout, odd widths and experts included."""
    model, ids = make_linear(tiny(layout, dtype=getattr(torch, dtype))), tiny_data().input_ids  # fused experts have no float64
    before, weight = logits(model, ids), model.model.layers[0].self_attn.q_proj.weight.clone()
    measured = transform(model, Rotation(random_rotations(model, 3)), torch.tensor(ids))
    assert largest_change(model, before, ids) <= allowed * float(before.abs().max())
    assert measured <= 1e-10
    assert not torch.allclose(model.model.layers[0].self_attn.q_proj.weight, weight, atol=1e-3)


def test_the_seed_draws_the_rotations() -> None:
    """One seed, one rotation; another seed, another."""
    first, again, other = (random_rotations(tiny(), seed).stream for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rotation_that_changes_the_function_stops_the_run(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """A matrix that is not orthogonal is found before anything is quantized, whatever the weights are stored in."""
    from producer.methods import quarot

    def skewed(model: Any, seed: int) -> Any:
        return random_rotations(model, seed)._replace(stream=1.001 * random_rotations(model, seed).stream)

    monkeypatch.setattr(quarot, "random_rotations", skewed)
    with pytest.raises(PostConditionError, match="rotation alone changed logits"):
        METHODS["quarot"].apply(tiny(dtype=dtype), W4A4, tiny_data(), 0)


@pytest.mark.parametrize(("name", "level"), [("quarot", "w8a8"), ("slicegpt", "0")])
@pytest.mark.parametrize("seed", range(3))
def test_storing_in_16_bits_is_no_change_of_function(name: str, level: str, seed: int) -> None:
    """In bfloat16 a mixture of experts sends tokens elsewhere once rotated weights are stored; that rotation was right all the same."""
    METHODS[name].apply(tiny("qwen3_moe", seed, torch.bfloat16), parse_level(level), tiny_data(), seed)


@pytest.mark.parametrize("layout", CONFIGS)
def test_what_is_learned_on_is_the_rotated_model(layout: str) -> None:
    """The loss equals the divergence of a model that is rotated first and rounds its inputs then, but for steps on the edge."""
    model, ids, bits = make_linear(tiny(layout)), torch.tensor(tiny_data().input_ids), 8
    rotations = random_rotations(model, 0)
    dense = logits(model, ids).log_softmax(-1)
    [target] = dense_states(model, [ids], model.device)
    with rotated(model, rotations, bits, model.device) as candidate, torch.no_grad():
        loss = float(candidate.loss([rotations.stream, *rotations.values], target))
    transform(model, Rotation(rotations), ids)
    for target in target_layers(model).values():
        target.register_forward_pre_hook(RoundInput(bits))
    expected = torch.nn.functional.kl_div(logits(model, ids).log_softmax(-1), dense, log_target=True, reduction="sum") / ids.numel()
    assert loss == pytest.approx(float(expected), rel=0.05)
    assert loss > 1e-6


def test_a_cayley_step_stays_orthogonal_and_descends() -> None:
    """After 200 steps towards a rotation (same determinant) the matrix is orthogonal to 1e-10 and much closer."""
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(8, 8, generator=generator, dtype=torch.float64)
    target, matrix = cayley(draw - draw.T), torch.eye(8, dtype=torch.float64)
    start, optimizer = float((matrix - target).norm()), CayleySGD([matrix], rate=0.1)
    for step in range(200):
        optimizer.step([matrix - target], 1 - step / 200)
    assert float((matrix.T @ matrix - torch.eye(8)).abs().max()) < 1e-10
    assert float((matrix - target).norm()) < 0.1 * start


@pytest.mark.parametrize("layout", ["llama-tied", "qwen2", pytest.param("qwen3_moe", marks=pytest.mark.slow)])
def test_learned_rotations_are_orthogonal_and_better_than_random(layout: str) -> None:
    """Learning lowers the output divergence under 4-bit activations below the random start's, orthogonal to 1e-6."""
    model, data = make_linear(tiny(layout)), tiny_data()
    learned, before, after = learn(model, random_rotations(model, 0), Job(W4A4, {}, data, 0))
    assert orthogonality(learned) <= 1e-6
    assert after < before
    dense = logits(model, data.input_ids)
    transform(model, Rotation(learned), torch.tensor(data.input_ids))
    assert largest_change(model, dense, data.input_ids) < 1e-4 * float(dense.abs().max())


@pytest.mark.parametrize("layout", ["llama", "qwen2"])
def test_spinquant_is_closer_to_dense_than_quarot(layout: str) -> None:
    """With weights and activations in 4 bits, learned rotations lower the output error on text they were not learned on."""
    ids = tiny_data(32, seed=1).input_ids
    dense = logits(tiny(layout), ids)
    models = [METHODS[name].apply(tiny(layout), W4A4, tiny_data(64), 0).model for name in ("spinquant", "quarot")]
    learned, random = (float((logits(model, ids) - dense).square().mean()) for model in models)
    assert learned < random


def test_spinquant_records_what_it_learned() -> None:
    """The run's conditions hold the loss before and after, the orthogonality and the function change by rotation alone."""
    conditions = METHODS["spinquant"].apply(tiny(), W4A4, tiny_data(), 0).conditions
    assert conditions["rotation_loss_after"] < conditions["rotation_loss_before"]
    assert conditions["rotation_orthogonality"] <= 1e-6
    assert conditions["logit_change_by_rotation"] < 1e-5


def test_rotations_that_learned_nothing_are_not_spinquant() -> None:
    """A run whose best rotation is the random start violates its post-condition, for it would be QuaRot under another name."""
    model = tiny()
    model.learning = {"rotation_loss_before": 0.5, "rotation_loss_after": 0.5, "rotation_orthogonality": 0.0}
    with pytest.raises(PostConditionError, match=r"no learned rotation was better than the random one \(loss 0\.5\)"):
        METHODS["spinquant"].verify(model, Job(W4A4, {}, tiny_data(), 0))


@pytest.mark.parametrize("layout", CONFIGS)
def test_smoothing_preserves_the_function_before_quantization(layout: str) -> None:
    """Dividing a norm by the scales and multiplying its readers (the router too) changes no logit beyond rounding."""
    model, data = make_linear(tiny(layout)), tiny_data()
    before, norm = logits(model, data.input_ids), model.model.layers[1].post_attention_layernorm.weight.clone()
    oneshot(model, lambda: [smoothing_modifier(model)], data)
    assert largest_change(model, before, data.input_ids) < 1e-5 * float(before.abs().max())
    assert not torch.allclose(norm, model.model.layers[1].post_attention_layernorm.weight, rtol=1e-2)


def test_smoothing_scales_follow_the_formula() -> None:
    """s = range(x)^0.5 / (2 max|W|)^0.5 per channel (Xiao et al. 2023, equation 4, with the symmetric range of both)."""
    model, data = tiny(), tiny_data()
    layer, seen = model.model.layers[0], []
    hook = layer.input_layernorm.register_forward_hook(lambda _, args, output: seen.append(output.double().flatten(0, -2)))
    logits(model, data.input_ids)
    hook.remove()
    x, before = torch.cat(seen), layer.input_layernorm.weight.detach().double().clone()
    readers = torch.cat([getattr(layer.self_attn, f"{part}_proj").weight.detach().double() for part in "qkv"])
    scale = ((x.amax(0) - x.amin(0)) / (2 * readers.abs().amax(0))).sqrt()
    oneshot(model, lambda: [smoothing_modifier(model)], data)
    torch.testing.assert_close(layer.input_layernorm.weight.double(), before / scale, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_activations_are_rounded_per_token(bits: int) -> None:
    """Each token has at most 2^bits - 1 values on a grid of its own largest value, which it keeps; zeros stay zero."""
    x = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(0))
    x[1, 2] = 0.0
    (rounded,) = RoundInput(bits)(None, (x,))
    steps = rounded / (x.abs().amax(-1, keepdim=True).clamp_min(1e-12) / (2 ** (bits - 1) - 1))
    assert torch.allclose(steps, steps.round(), atol=1e-4)
    assert torch.equal(rounded[1, 2], x[1, 2])
    torch.testing.assert_close(rounded.abs().amax(-1), x.abs().amax(-1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_activations_in_16_bits_have_no_more_steps(dtype: Any) -> None:
    """At 8 bits every value is one of 255 multiples of its token's step, rounded once; a token of zeros stays one."""
    x = torch.randn(200, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    x[7] = 0.0
    (rounded,) = RoundInput(8)(None, (x,))
    step = x.double().abs().amax(-1, keepdim=True).clamp_min(1e-12) / 127
    counted = rounded.double() / step
    assert rounded.dtype == dtype and torch.equal(rounded[7], x[7])
    assert float(counted.abs().max()) < 127.5
    assert torch.allclose(counted, counted.round(), atol=128 * torch.finfo(dtype).eps)


def test_rounding_while_learning_knows_what_the_largest_value_costs() -> None:
    """Of 7 and 2.8 steps, 0.2 of a step is added to the second; a step is a seventh of the largest value, so that has a share in it."""
    x = torch.tensor([[3.0, 1.2]], requires_grad=True)
    (rounded,) = RoundStraightThrough(4)(None, (x,))
    torch.testing.assert_close(rounded, RoundInput(4)(None, (x,))[0])
    rounded.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[1 + 0.2 / 7, 1.0]]))


@pytest.mark.parametrize("layout", CONFIGS)
@pytest.mark.parametrize("name", ["smoothquant", "quarot"])
def test_rounded_activations_take_every_layout(name: str, layout: str) -> None:
    """Every layout and every expert at w4a4; each target layer rounds its input and nothing else is wrapped around it."""
    applied = METHODS[name].apply(tiny(layout), W4A4, tiny_data(), 0)
    assert applied.conditions["steps_off_grid"] < 0.2
    for layer in target_layers(applied.model).values():
        rounding = [hook for hook in layer._forward_pre_hooks.values() if isinstance(hook, RoundInput)]
        assert len(rounding) == 1 and "forward" not in layer.__dict__


@pytest.mark.parametrize("name", ["smoothquant", "quarot"])
def test_fewer_bits_move_further_from_dense(name: str) -> None:
    """w8a8, w6a6 and w4a4 in one sweep, each further from dense than the one before."""
    levels = [parse_level(text) for text in ("w8a8", "w6a6", "w4a4")]
    changes = [a.conditions["logit_change"] for a in METHODS[name].sweep(tiny(), levels, tiny_data(), 0)]
    assert changes == sorted(changes)
