"""Rotations preserve the function, learned ones stay orthogonal and lower the loss; smoothing preserves the function too."""

from typing import Any

import pytest
from producer_tiny import CONFIGS, logits, tiny, tiny_data

from producer.methods import METHODS
from producer.methods.shared.contract import Job
from producer.methods.shared.float64_transform import transform
from producer.methods.shared.linear_layers import target_layers
from producer.methods.shared.make_linear import make_linear
from producer.methods.shared.quantization import RoundInput
from producer.methods.shared.rotated_forward import RoundStraightThrough, dense_states, rotated
from producer.methods.shared.rotation import RotateInput, Rotation, is_hadamard, random_rotations
from producer.methods.smoothquant import SEARCH, smooth
from producer.methods.spinquant import CayleySGD, cayley, learn, orthogonality
from schemas.errors import PostConditionError, UsageError
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
    """R1, R2, R4 and the rotation across heads change no logit by more than rounding, in every layout, odd widths and experts included."""
    model, ids = make_linear(tiny(layout, dtype=getattr(torch, dtype))), tiny_data().input_ids  # fused experts have no float64
    before, weight = logits(model, ids), model.model.layers[0].self_attn.q_proj.weight.clone()
    across_heads = is_hadamard(model.config.num_attention_heads)  # not for the three heads of one layout
    measured = transform(model, Rotation(random_rotations(model, 3, across_heads=across_heads)), torch.tensor(ids))
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

    def skewed(model: Any, seed: int, **_: Any) -> Any:
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
    with rotated(model, rotations, RoundStraightThrough(bits, 0.9), model.device) as candidate, torch.no_grad():
        loss = float(candidate.loss([rotations.stream, *rotations.values], target))
    transform(model, Rotation(rotations), ids)
    for target in target_layers(model).values():
        target.register_forward_pre_hook(RoundInput(bits, 0.9))
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
    learned, before, after = learn(model, random_rotations(model, 0), Job(W4A4, {"activation_clip": 0.9}, data, 0))
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
    smooth(model, smoothing_job("0.5"))
    assert largest_change(model, before, data.input_ids) < 1e-5 * float(before.abs().max())
    assert not torch.allclose(norm, model.model.layers[1].post_attention_layernorm.weight, rtol=1e-2)


@pytest.mark.parametrize("exponent", ["0.5", "0.85", "1", "0"])
def test_smoothing_scales_follow_the_formula(exponent: str) -> None:
    """s_j = max|x_j|^a / max|w_j|^(1 - a) (Xiao et al. 2023, equation 4), channel by channel, over all tokens and all readers."""
    model, share = tiny(), float(exponent)
    layer = model.model.layers[0]
    before, readers, x = layer.input_layernorm.weight.detach().double().clone(), projections(layer), norm_outputs(model)
    smooth(model, smoothing_job(exponent))
    for j in range(64):
        largest = max(abs(float(weight)) for reader in readers for weight in reader[:, j])
        scale = max(abs(float(token[j])) for token in x) ** share / largest ** (1 - share)
        assert float(layer.input_layernorm.weight.detach()[j]) == pytest.approx(float(before[j]) / scale, rel=1e-4)
    for after, reader in zip(projections(layer), readers, strict=True):
        torch.testing.assert_close(after * layer.input_layernorm.weight.double(), reader * before, rtol=1e-5, atol=1e-7)


def test_the_exponent_found_is_that_of_a_loop() -> None:
    """Of five exponents the first norm gets the one whose rounded layers are nearest to the dense ones, written out token by token."""
    model, job = tiny(), smoothing_job("search", "w4a4")
    readers, x = [weight.float() for weight in projections(model.model.layers[0])], norm_outputs(model).float()
    errors = []  # in float32, as the largest weight of a row lies half way between two steps, where the last digit decides
    for share in (0.5, 0.6, 0.7, 0.8, 0.9):
        scale = x.abs().amax(0) ** share / torch.cat(readers).abs().amax(0) ** (1 - share)
        error = 0.0
        for token in x / scale:
            step = token.abs().max().clamp_min(1e-12) / 7  # the padding token is all zeros
            inputs = (token / step).round() * step
            for reader in readers:
                weight = reader * scale
                steps = weight.abs().amax(1, keepdim=True) / 7.5
                rounded = (weight / steps).round().clamp(-8, 7) * steps
                error += float((rounded @ inputs - weight @ token).square().sum())
        errors.append(error)
    found = SEARCH["from"].index(smooth(model, job)[0])
    assert errors[found] <= 1.01 * min(errors)  # 0.5 and 0.6 are equally good within rounding
    assert max(errors) > 1.2 * min(errors)
    conditions = METHODS["smoothquant"].with_chosen({"smoothing": "search"}).apply(tiny(), W4A4, tiny_data(), 0).conditions
    assert len(conditions["smoothing_by_norm"]) == 2 * len(model.model.layers)


def test_no_exponent_is_searched_on_a_layer_that_is_not_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mixture of experts rounds its experts' readers and those of attention, but not the router, so the search does not either."""
    from producer.methods import smoothquant

    model, seen, rounding = tiny("qwen3_moe"), set(), smoothquant.rounded_weight

    def watched(weight: Any, level: Any) -> Any:
        seen.add(tuple(weight.shape))
        return rounding(weight, level)

    monkeypatch.setattr(smoothquant, "rounded_weight", watched)
    layer = make_linear(model).model.layers[0]
    smooth(model, smoothing_job("search", "w4a4"))
    assert tuple(layer.mlp.experts[0].up_proj.weight.shape) in seen and tuple(layer.self_attn.q_proj.weight.shape) in seen
    assert tuple(layer.mlp.gate.weight.shape) not in seen


def test_an_exponent_is_the_authors_unless_it_is_given() -> None:
    """0.85 for Llama, 0.8 for its like; a given one is recorded, and nonsense is refused by name."""
    method, level = METHODS["smoothquant"], parse_level("w8a8")
    assert method.settings(level, tiny("llama").config)["smoothing"] == 0.85
    assert method.settings(level, tiny("qwen3").config)["smoothing"] == 0.8
    assert method.with_chosen({"smoothing": "0.5"}).settings(level, tiny().config)["smoothing"] == 0.5
    for wrong in ("1.1", "-0.1", "nan", "much"):
        with pytest.raises(UsageError, match=f"--set smoothing={wrong}: method 'smoothquant' takes a number from 0 to 1, or search"):
            method.with_chosen({"smoothing": wrong})


def smoothing_job(exponent: str, level: str = "w8a8") -> Job:
    """A job for smoothing with this exponent."""
    method = METHODS["smoothquant"].with_chosen({"smoothing": exponent})
    return Job(parse_level(level), method.settings(parse_level(level), tiny().config), tiny_data(), 0)


def projections(layer: Any) -> list[Any]:
    """The weights that read the first norm of a layer, float64."""
    return [getattr(layer.self_attn, f"{part}_proj").weight.detach().double().clone() for part in "qkv"]


def norm_outputs(model: Any) -> Any:
    """What the first norm gives for the compression data, (token, channel) float64."""
    seen: list[Any] = []
    hook = model.model.layers[0].input_layernorm.register_forward_hook(lambda _, args, output: seen.append(output.double().flatten(0, -2)))
    logits(model, tiny_data().input_ids)
    hook.remove()
    return torch.cat(seen)


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


@pytest.mark.parametrize("bits", [4, 8])
def test_clipped_activations_are_those_of_a_loop(bits: int) -> None:
    """With a clip ratio of 0.9 every number goes to the nearest of 2^bits steps, the largest of which is 0.9 of the token's magnitude."""
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    (rounded,) = RoundInput(bits, 0.9)(None, (x,))
    for token, found in zip(x.double(), rounded, strict=True):
        step = 0.9 * max(abs(float(value)) for value in token) / (2 ** (bits - 1) - 1)
        for value, result in zip(token, found, strict=True):
            points = [number * step for number in range(-(2 ** (bits - 1)), 2 ** (bits - 1))]
            assert float(result) == pytest.approx(min(points, key=lambda point: abs(point - float(value))), rel=1e-5, abs=1e-6)


def test_the_gradient_of_a_clipped_value_goes_to_the_largest() -> None:
    """At 4 bits and 0.5, 3 and 2.9 become 7 steps of 1.5 / 7: only the largest value, which sets the step, has a gradient."""
    x = torch.tensor([[3.0, 2.9]], requires_grad=True)
    (rounded,) = RoundStraightThrough(4, 0.5)(None, (x,))
    torch.testing.assert_close(rounded, RoundInput(4, 0.5)(None, (x,))[0])
    rounded.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[1.0, 0.0]]))


@pytest.mark.parametrize("name", ["quarot", "spinquant"])
def test_the_range_of_a_weight_grid_is_that_of_a_loop(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 80 shares of a row's largest magnitude, the one with the smallest sum of |rounded - weight|^2.4, written out row by row."""
    import importlib

    module, weights = importlib.import_module("producer.methods.quarot"), {}

    def remember(model: Any, rotation: Any, *others: Any) -> float:
        change = transform(model, rotation, *others)
        weights.update({name: layer.weight.detach().double().clone() for name, layer in target_layers(model).items()})
        return change

    monkeypatch.setattr(module, "transform", remember)
    applied = METHODS[name].apply(tiny(), W4A4, tiny_data(), 0)
    assert applied.settings["weight_clip"] == {"grid": 100, "max_shrink": 0.8, "norm": 2.4}
    assert applied.settings["activation_clip"] == 0.9
    smaller = 0
    for name_of, layer in list(target_layers(applied.model).items())[:4]:
        for row, scale in zip(weights[name_of], layer.weight_scale, strict=True):
            largest = float(row.abs().max())
            steps = [(1 - number / 100) * largest / 7.5 for number in range(80)]
            errors = [float((((row / step).round().clamp(-8, 7) * step - row).abs() ** 2.4).sum()) for step in steps]
            best = errors.index(min(errors))
            smaller += best > 0
            chosen = errors[round(100 - float(scale) * 750 / largest)]  # of shares that are equally good within rounding, any may be taken
            assert float(scale) == pytest.approx(steps[best], rel=1e-4) or chosen < (1 + 1e-5) * errors[best]
    assert smaller > 50


@pytest.mark.parametrize("name", ["quarot", "spinquant"])
def test_activations_are_clipped_where_steps_are_wide(name: str) -> None:
    """0.9 up to 4 bits; with more a clipped value costs more than the finer steps give, so nothing is clipped unless it is asked for."""
    clips = {text: METHODS[name].settings(parse_level(text), tiny().config)["activation_clip"] for text in ("w4a4", "w8a4", "w6a6", "w4a8")}
    assert clips == {"w4a4": 0.9, "w8a4": 0.9, "w6a6": 1.0, "w4a8": 1.0}
    asked = METHODS[name].with_chosen({"activation_clip": "0.9"})
    assert asked.settings(parse_level("w8a8"), tiny().config)["activation_clip"] == 0.9


@pytest.mark.parametrize(("layout", "expected"), [("llama", "together"), ("odd", "apart")])
def test_heads_are_rotated_together_where_their_number_allows(layout: str, expected: str) -> None:
    """Four heads have a Hadamard matrix, three have none; the output projection sees a mixture of all heads, or its own head's numbers."""
    config, method = tiny(layout).config, METHODS["quarot"]
    assert method.settings(W4A4, config)["heads"] == expected
    applied = method.apply(tiny(layout), W4A4, tiny_data(), 0)
    output = applied.model.model.layers[0].self_attn.o_proj
    mixing = [hook for hook in output._forward_pre_hooks.values() if isinstance(hook, RotateInput)]
    assert len(mixing) == (expected == "together")
    if mixing:
        x, heads = torch.randn(2, 64), mixing[0].left.float()
        (mixed,) = mixing[0](output, (x,))
        naive = torch.stack([sum(heads[b, a] * x[:, b * 16 : b * 16 + 16] for b in range(4)) for a in range(4)], 1).flatten(1)
        torch.testing.assert_close(mixed, naive)
    else:
        with pytest.raises(UsageError, match="no Hadamard matrix of size 3"):
            method.with_chosen({"heads": "together"}).check_config(config, W4A4)


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
