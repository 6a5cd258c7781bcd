"""Magnitude and Wanda against their papers' formulas in float64; every pruning method on weights that are zero already."""

from typing import Any

import pytest
from producer_tiny import AT_HAND, CONFIGS, logits, tiny, tiny_data, tiny_level

from producer.methods import METHODS
from producer.methods.shared.contract import Job
from producer.methods.shared.linear_layers import target_layers
from producer.methods.shared.make_linear import make_linear
from schemas.errors import PostConditionError
from schemas.levels import parse_level

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.producer
LEVELS = ["0.29", "0.5", "2:4", "4:8", "1:4"]


def pruned(model: Any) -> dict[str, Any]:
    return {name: layer.weight == 0 for name, layer in target_layers(model).items()}


def inputs_behind(pruned: Any, model: Any, data: Any) -> dict[str, Any]:
    """Inputs of every target layer, (token, column) float64, each decoder layer dense behind the pruned ones before it.

    model : the dense model; its layers are replaced by the pruned ones on the way.
    """
    seen: dict[str, list[Any]] = {}
    for number, layer in enumerate(model.model.layers):
        targets = {n: m for n, m in target_layers(model).items() if n.startswith(f"model.layers.{number}.")}
        hooks = [
            target.register_forward_pre_hook(lambda _, args, name=name: seen.setdefault(name, []).append(args[0].double().flatten(0, -2)))
            for name, target in targets.items()
        ]
        logits(model, data.input_ids)
        for hook in hooks:
            hook.remove()
        layer.load_state_dict(pruned.model.layers[number].state_dict())
    return {name: torch.cat(parts) for name, parts in seen.items()}


def smallest(importance: Any, text: str) -> Any:
    """Mask of the weights a level prunes, ranking each row of `importance`."""
    level = parse_level(text)
    rows = importance.reshape(-1, level.of) if level.kind == "pattern" else importance
    pruned = level.of - level.kept if level.kind == "pattern" else round(rows.shape[1] * level.fraction)
    mask = torch.zeros_like(rows, dtype=torch.bool)
    mask.scatter_(1, rows.argsort(dim=1)[:, :pruned], True)
    return mask.reshape(importance.shape)


@pytest.mark.parametrize("text", LEVELS)
def test_magnitude_prunes_the_smallest_weights_of_a_matrix(text: str) -> None:
    """The mask is the ranking of |W| over the matrix (over each group of m for n:m), and other weights keep their value."""
    model = tiny("llama")
    weights = {name: layer.weight.clone() for name, layer in target_layers(model).items()}
    after = METHODS["magnitude"].apply(model, parse_level(text), None, 0).model
    for name, layer in target_layers(after).items():
        rows = weights[name] if ":" in text else weights[name].reshape(1, -1)
        expected = smallest(rows.abs().double(), text).reshape(layer.weight.shape)
        assert torch.equal(layer.weight == 0, expected)
        assert torch.equal(layer.weight[~expected], weights[name][~expected])


@pytest.mark.parametrize("text", LEVELS)
def test_wanda_prunes_by_weight_times_input_norm(text: str) -> None:
    """The mask is the ranking of |W| * ||x|| within each row, x behind the layers pruned before (Sun et al. 2024, equation 1)."""
    model, data = tiny("llama"), tiny_data()
    weights = {name: layer.weight.detach().double() for name, layer in target_layers(tiny("llama")).items()}
    after = METHODS["wanda"].apply(model, parse_level(text), data, 0).model
    inputs = inputs_behind(after, tiny("llama"), data)
    for name, mask in pruned(after).items():
        assert torch.equal(mask, smallest(weights[name].abs() * inputs[name].norm(dim=0), text)), name


@pytest.mark.parametrize("sequences", [16, 2])
def test_wanda_measures_an_expert_on_the_tokens_routed_to_it(sequences: int) -> None:
    """In a mixture of experts each expert's norms come from its own tokens, or from all where they are fewer than its columns."""
    model, data = make_linear(tiny("qwen3_moe")), tiny_data(sequences)
    mlp = model.model.layers[0].mlp
    seen: list[Any] = []
    hook = mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        model(input_ids=torch.tensor(data.input_ids), use_cache=False)
    hook.remove()
    x = torch.cat(seen)
    chosen = (x @ mlp.gate.weight.T).topk(2).indices
    own = [x[(chosen == i).any(1)] for i in range(4)]
    assert {len(tokens) < x.shape[1] for tokens in own} == {sequences == 2}
    norms = [(tokens if sequences == 16 else x).double().norm(dim=0) for tokens in own]
    scores = [mlp.experts[i].up_proj.weight.detach().double().abs() * norms[i] for i in range(4)]
    applied = METHODS["wanda"].apply(model, parse_level("0.5"), data, 0)
    for i, score in enumerate(scores):
        assert torch.equal(applied.model.model.layers[0].mlp.experts[i].up_proj.weight == 0, smallest(score, "0.5"))
    assert (applied.conditions["experts_from_all_tokens"] > 0.6) == (sequences == 2)


@pytest.mark.parametrize("name", ["sparsegpt", "gptq", "quarot"])
def test_second_order_methods_say_for_how_many_experts_all_tokens_were_used(name: str) -> None:
    """No expert's matrix where each saw more tokens than it has columns, all where there are few; nothing without experts."""
    many, few = (METHODS[name].apply(tiny("qwen3_moe"), tiny_level(name), tiny_data(n), 0).conditions for n in (16, 2))
    assert many["experts_from_all_tokens"] == 0 and few["experts_from_all_tokens"] > 0.6
    assert "experts_from_all_tokens" not in METHODS[name].apply(tiny(), tiny_level(name), tiny_data(), 0).conditions


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("name", ["magnitude", "wanda"])
def test_pruning_reaches_its_sparsity_on_every_architecture(name: str, architecture: str) -> None:
    """Exact sparsity in every layer, recorded with the run; the head and the embeddings keep their weights."""
    applied = METHODS[name].apply(tiny(architecture), parse_level("0.5"), tiny_data(), 0)
    assert applied.conditions["sparsity"] == applied.conditions["sparsity_lowest"] == applied.conditions["sparsity_highest"] == 0.5
    assert applied.conditions["logit_change"] > 0
    assert torch.equal(applied.model.lm_head.weight, tiny(architecture).lm_head.weight)


def test_a_sweep_equals_single_runs_and_leaves_the_dense_model_alone() -> None:
    """Levels made in one sweep have the weights of levels made one by one, and level 0 is the dense model."""
    levels = [parse_level(text) for text in ("0.5", "0", "0.3")]
    sweep = [
        {name: layer.weight.clone() for name, layer in target_layers(a.model).items()}
        for a in METHODS["wanda"].sweep(tiny(), levels, tiny_data(), 0)
    ]
    for level, weights in zip(levels, sweep, strict=True):
        alone = target_layers(METHODS["wanda"].apply(tiny(), level, tiny_data(), 0).model)
        assert all(torch.equal(weights[name], alone[name].weight) for name in weights)
    dense = target_layers(tiny())
    assert all(torch.equal(sweep[1][name], dense[name].weight) for name in dense)


def test_ties_are_pruned_in_order() -> None:
    """Equal weights are pruned by index, so the same model gives the same run on any machine."""
    model = tiny()
    for layer in target_layers(model).values():
        layer.weight.data = layer.weight.data.sign()
    after = METHODS["magnitude"].apply(model, parse_level("0.25"), None, 0).model
    for layer in target_layers(after).values():
        zeros = (layer.weight == 0).flatten().nonzero().flatten()
        assert torch.equal(zeros, torch.arange(len(zeros)))


def test_a_layer_that_was_not_pruned_violates_the_post_condition() -> None:
    """One dense layer among pruned ones stops the run, named."""
    method, level = METHODS["wanda"], parse_level("2:4")
    model = method.apply(tiny(), level, tiny_data(), 0).model
    model.model.layers[1].mlp.up_proj.weight.data.fill_(1.0)
    with pytest.raises(PostConditionError, match=r"layers.1.mlp.up_proj"):
        method.verify(model, Job(level, {}, None, 0))


def neurons_removed(model: Any) -> None:
    """Clear 40 of 96 channels of every MLP, as structured pruning without resizing leaves them."""
    for layer in model.model.layers:
        layer.mlp.gate_proj.weight.data[:40] = 0
        layer.mlp.down_proj.weight.data[:, :40] = 0


def inputs_always_zero(model: Any) -> None:
    """Let ten channels of every norm's output be zero for every token."""
    for layer in model.model.layers:
        layer.input_layernorm.weight.data[:10] = 0
        layer.post_attention_layernorm.weight.data[:10] = 0


def pruned_before(model: Any) -> None:
    """Clear the smallest 60 % of every matrix."""
    for layer in target_layers(model).values():
        weight = layer.weight.data
        weight[weight.abs() < weight.abs().quantile(0.6)] = 0


def a_layer_of_zeros(model: Any) -> None:
    """Clear a whole attention output, as a layer that was switched off has it."""
    model.model.layers[1].self_attn.o_proj.weight.data.zero_()


def an_expert_never_used(model: Any) -> None:
    """Clear one expert of every layer."""
    for layer in make_linear(model).model.layers:
        for projection in ("gate_proj", "up_proj", "down_proj"):
            getattr(layer.mlp.experts[1], projection).weight.data.zero_()


ZEROS = [
    (neurons_removed, "llama"), (inputs_always_zero, "llama"), (pruned_before, "llama"), (a_layer_of_zeros, "llama"),
    (an_expert_never_used, "qwen3_moe"),
]  # fmt: skip
PRUNING = [name for name, method in METHODS.items() if parse_level(method.default_level).kind == "sparsity"]
SINGLE_WEIGHTS = [name for name in PRUNING if not METHODS[name].accepts(parse_level("2:4"))]


@pytest.mark.parametrize(("clear", "architecture"), ZEROS)
@pytest.mark.parametrize("text", ["0.5", "2:4"])
@pytest.mark.parametrize("name", SINGLE_WEIGHTS)
def test_weights_that_are_zero_already_count_towards_the_level(name: str, text: str, clear: Any, architecture: str) -> None:
    """Every matrix has at least the zeros asked for, and of the weights that were not zero no more than that many went."""
    model = make_linear(tiny(architecture))
    clear(model)
    alive = {target: layer.weight != 0 for target, layer in target_layers(model).items()}
    applied = METHODS[name].apply(model, parse_level(text), tiny_data(), 0)
    newly = {}
    for target, layer in target_layers(applied.model).items():
        asked, zero = layer.weight.numel() // 2, layer.weight == 0
        dead = [0] * 10 if clear is inputs_always_zero and not target.endswith(("o_proj", "down_proj")) else []
        newly[target] = int((zero & alive[target])[:, len(dead) :].sum())
        assert zero.sum() >= asked
        assert newly[target] <= asked
        if text == "2:4":
            assert ((layer.weight.reshape(-1, 4) != 0).sum(1) <= 2).all()
    if clear is not inputs_always_zero:
        assert applied.conditions["weights_pruned"] == sum(newly.values())
    if clear is pruned_before and text == "0.5" and name == "magnitude":
        assert (applied.conditions["weights_pruned"], applied.conditions["logit_change"]) == (0, 0)


@pytest.mark.parametrize("name", SINGLE_WEIGHTS)
def test_weights_pruned_beyond_the_level_violate_the_post_condition(name: str) -> None:
    """A matrix that lost more than its share of living weights stops the run, though weights were zero before."""
    model = tiny()
    neurons_removed(model)
    method, level = METHODS[name], parse_level("0.5")
    model = method.apply(model, level, tiny_data(), 0).model
    model.model.layers[1].mlp.up_proj.weight.data[:70] = 0
    with pytest.raises(PostConditionError, match=r"layers.1.mlp.up_proj .* lost \d+ of 6144 weights, more than 3072"):
        method.verify(model, Job(level, {}, None, 0))


@pytest.mark.parametrize(("clear", "architecture"), ZEROS)
@pytest.mark.parametrize("name", [name for name in AT_HAND if name not in SINGLE_WEIGHTS])
def test_every_other_method_takes_weights_that_are_zero_already(name: str, clear: Any, architecture: str) -> None:
    """Structures and groups of zeros are removed or rounded as any others; logits stay finite and the post-conditions hold."""
    model, level = make_linear(tiny(architecture)), tiny_level(name)
    clear(model)
    applied = METHODS[name].apply(model, level, tiny_data(64) if METHODS[name].needs_data(level) else None, 0)
    assert logits(applied.model, tiny_data().input_ids).isfinite().all()
