"""LLM-Pruner and SliceGPT: coupled structures go together, in the order of their importance; a rotation that is not cut changes nothing."""

from typing import Any

import numpy as np
import pytest
from producer_tiny import CONFIGS, logits, tiny, tiny_data

from producer.methods import METHODS
from producer.methods.llm_pruner import collect_importance
from producer.methods.shared.contract import Job
from producer.methods.shared.linear_layers import target_layers
from producer.methods.shared.make_linear import make_linear
from producer.methods.slicegpt import collect_axes, sliced_width
from schemas.errors import PostConditionError, UsageError
from schemas.levels import parse_level

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.producer
STRUCTURED = ["llm-pruner", "slicegpt"]


def runs_with_cache(model: Any) -> bool:
    """Whether a prefix in the key/value cache gives the logits of the whole sequence."""
    ids = torch.tensor(tiny_data(2, 12).input_ids)
    with torch.no_grad():
        prefix = model(input_ids=ids[:, :7], use_cache=True)
        rest = model(input_ids=ids[:, 7:], past_key_values=prefix.past_key_values).logits
    return torch.allclose(rest, logits(model, ids)[:, 7:], atol=1e-4)


@pytest.mark.parametrize("layout", CONFIGS)
@pytest.mark.parametrize("name", STRUCTURED)
def test_a_pruned_model_runs_like_any_other(name: str, layout: str) -> None:
    """Every layout, experts included, runs with and without a key/value cache, and has fewer weights."""
    model = tiny(layout)
    level = parse_level("0.3" if name == "slicegpt" else "0.15")
    applied = METHODS[name].apply(model, level, tiny_data(), 0)
    assert applied.conditions["decoder_weights_removed"] > 0
    assert runs_with_cache(applied.model)


def test_llm_pruner_removes_what_its_level_says() -> None:
    """The share of decoder weights removed is the level's to a channel, all of it from the inner blocks."""
    for text in ("0.1", "0.2", "0.25"):
        conditions = METHODS["llm-pruner"].apply(tiny(), parse_level(text), tiny_data(), 0).conditions
        assert conditions["decoder_weights_removed"] == pytest.approx(float(text), abs=0.01)
        assert conditions["channels"][0] == conditions["channels"][2] == [96]
        assert conditions["kv_heads"][0] == conditions["kv_heads"][2] == 2


def test_llm_pruner_ranks_by_gradient_times_weight() -> None:
    """The channels and the group that go have the smallest sum of |grad * weight| (Ma et al. 2023), gradients by hand in float64."""
    model, data = tiny(dtype=torch.float64), tiny_data()
    ids = torch.tensor(data.input_ids)
    scores = model(input_ids=ids, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(scores[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="sum") / 8 / ids.shape[1]
    block = model.model.layers[1]
    parts = {n: m for n, m in block.named_modules() if n.endswith("_proj")}
    gradients = dict(zip(parts, torch.autograd.grad(loss, [m.weight for m in parts.values()]), strict=True))
    importance = {n: (gradients[n] * m.weight).abs().detach() for n, m in parts.items()}
    channels = importance["mlp.gate_proj"].sum(1) + importance["mlp.up_proj"].sum(1) + importance["mlp.down_proj"].sum(0)
    heads = sum(importance[f"self_attn.{p}_proj"].unflatten(0, (2, -1)).sum((1, 2)) for p in "qkv")
    heads = heads + importance["self_attn.o_proj"].unflatten(1, (2, -1)).sum((0, 2))
    before = {n: m.weight.detach().clone() for n, m in parts.items()}
    conditions = METHODS["llm-pruner"].apply(model, parse_level("0.2"), data, 0).conditions
    keep = channels.argsort()[conditions["channels_removed"] :].sort().values
    assert torch.equal(block.mlp.gate_proj.weight, before["mlp.gate_proj"][keep])
    assert torch.equal(block.mlp.up_proj.weight, before["mlp.up_proj"][keep])
    assert torch.equal(block.mlp.down_proj.weight, before["mlp.down_proj"][:, keep])
    best = int(heads.argmax())
    assert torch.equal(block.self_attn.k_proj.weight, before["self_attn.k_proj"].unflatten(0, (2, -1))[best])
    assert torch.equal(block.self_attn.o_proj.weight, before["self_attn.o_proj"].unflatten(1, (2, -1))[:, best])


def test_llm_pruner_takes_channels_of_every_expert_and_keeps_the_router() -> None:
    """Each expert of the inner block loses the same number of channels; no expert and no router weight goes."""
    model = tiny("qwen3_moe")
    routers = [layer.mlp.gate.weight.clone() for layer in model.model.layers]
    applied = METHODS["llm-pruner"].apply(model, parse_level("0.2"), tiny_data(), 0)
    assert len(applied.conditions["channels"][1]) == 1
    assert [len(layer.mlp.experts) - 1 for layer in applied.model.model.layers] == [4, 4, 4]
    assert all(torch.equal(layer.mlp.gate.weight, w) for layer, w in zip(applied.model.model.layers, routers, strict=True))


def test_an_expert_without_tokens_is_ranked_by_its_weights() -> None:
    """An expert that no token reached has no gradient; its channels are ordered by |weight| instead of by chance."""
    model = make_linear(tiny("qwen3_moe"))
    router = model.model.layers[1].mlp.gate.weight
    router.data[2] = -1e3 * router.data[:2].abs().sum(0)  # never among the two most likely for positive inputs, rarely otherwise
    model.model.layers[1].post_attention_layernorm.weight.data.zero_()
    expert = model.model.layers[1].mlp.experts[3]
    importance = collect_importance(model, tiny_data()).importance["model.layers.1.mlp.experts.3.up_proj"]
    assert torch.equal(importance, expert.up_proj.weight.detach().abs().sum(1))


@pytest.mark.parametrize("layout", CONFIGS)
def test_an_uncut_rotation_preserves_the_function(layout: str) -> None:
    """SliceGPT at fraction 0 turns every half layer into its principal axes and changes no logit beyond rounding."""
    ids = tiny_data().input_ids
    before = logits(tiny(layout), ids)
    after = logits(METHODS["slicegpt"].apply(tiny(layout), parse_level("0"), tiny_data(), 0).model, ids)
    # float32 rounding of two layers and their experts; 1.02e-5 on one processor, 0.2e-5 without experts
    assert float((after - before).abs().max()) < 2e-5 * float(before.abs().max())


def test_slicegpt_cuts_the_directions_of_least_variance() -> None:
    """The axes diagonalise the normalised signals' second moments, strongest first (Ashkboos et al. 2024, section 3.3)."""
    model, data, seen = tiny(), tiny_data(), []
    norm = model.model.layers[1].post_attention_layernorm
    hook = norm.register_forward_hook(lambda _, args, output: seen.append((output / norm.weight).double().flatten(0, -2)))
    logits(model, data.input_ids)
    hook.remove()
    axes = collect_axes(model, data).axes[3]
    moments = axes.T @ torch.cat(seen).T @ torch.cat(seen) @ axes
    spread = moments.diagonal()
    assert torch.equal(spread.argsort(descending=True), torch.arange(64))
    assert float((moments - spread.diag()).abs().max()) < 1e-4 * float(spread.max())


def test_the_head_reads_the_whole_stream_unless_it_is_sliced_too() -> None:
    """The logits are those of the last layer's output in its full width, added up in numpy from what the sliced layers give."""
    data, level, method = tiny_data(), parse_level("0.25"), METHODS["slicegpt"]
    whole = method.apply(tiny(), level, data, 0)
    sliced = method.with_chosen({"head": "sliced"}).apply(tiny(), level, data, 0)
    assert (whole.conditions["head_width"], sliced.conditions["head_width"]) == (64, 48)
    assert whole.conditions["decoder_weights_removed"] < sliced.conditions["decoder_weights_removed"]
    assert whole.model.model.layers[-1].mlp.down_proj.weight.shape == (64, 96)
    axes, last = collect_axes(tiny(), data).axes[-1].numpy(), []
    hook = whole.model.model.layers[-1].register_forward_hook(lambda _, args, output: last.append(output.double().numpy()))
    found = logits(whole.model, data.input_ids).numpy()
    hook.remove()
    stream = last[0] @ axes.T  # back in the channels of the dense model
    dense = tiny()
    normed = stream / np.sqrt((stream**2).mean(-1, keepdims=True) + dense.model.norm.variance_epsilon)
    norm, head = (module.weight.detach().double().numpy() for module in (dense.model.norm, dense.lm_head))
    assert np.allclose(found, normed * norm @ head.T, atol=1e-4)


def test_the_head_of_a_mixture_of_experts_is_sliced() -> None:
    """Experts write as many channels as they read, so the head reads the narrower stream, and a whole one is refused with the reason."""
    config, level = tiny("qwen3_moe").config, parse_level("0.25")
    assert METHODS["slicegpt"].settings(level, config)["head"] == "sliced"
    with pytest.raises(UsageError, match="its experts write as many channels as they read"):
        METHODS["slicegpt"].with_chosen({"head": "whole"}).check_config(config, level)


def test_llm_pruner_prunes_the_blocks_it_is_told_to() -> None:
    """Blocks 0 and 1 of three lose what the level says of all weights together, and the last one stays as it is."""
    method, level = METHODS["llm-pruner"].with_chosen({"blocks": "0:2"}), parse_level("0.2")
    applied = method.apply(tiny(), level, tiny_data(), 0)
    assert applied.settings["blocks"] == [0, 2]
    assert applied.conditions["decoder_weights_removed"] == pytest.approx(0.2, abs=0.01)
    channels = applied.conditions["channels"]
    assert channels[0] == channels[1] < channels[2] == [96]
    assert METHODS["llm-pruner"].settings(level, tiny().config)["blocks"] == [1, 2]
    with pytest.raises(UsageError, match="blocks=0:4 ends behind its 3 blocks"):
        METHODS["llm-pruner"].with_chosen({"blocks": "0:4"}).check_config(tiny().config, level)
    for wrong in ("2:2", "3:1", "-1:2", "a:b", "4"):
        with pytest.raises(UsageError, match=f"--set blocks={wrong}: method 'llm-pruner' takes START:END"):
            METHODS["llm-pruner"].with_chosen({"blocks": wrong})


def test_cutting_the_least_directions_beats_cutting_the_most() -> None:
    """A model cut along its weakest axes stays closer to dense than one cut along its strongest."""
    ids, level, method = tiny_data().input_ids, parse_level("0.25"), METHODS["slicegpt"]
    dense = logits(tiny(), ids)
    statistics = collect_axes(tiny(), tiny_data())
    reversed_axes = statistics._replace(axes=[axes.flip(1) for axes in statistics.axes])
    cut = [method.compress(tiny(), Job(level, {"head": "whole"}, tiny_data(), 0, s)) for s in (statistics, reversed_axes)]
    changes = [float((logits(model, ids) - dense).square().mean()) for model in cut]
    assert changes[0] < 0.5 * changes[1]


@pytest.mark.parametrize("name", STRUCTURED)
def test_structured_methods_refuse_patterns_and_bits(name: str) -> None:
    """Whole structures have no n:m and no bits."""
    for text in ("2:4", "w4a16"):
        with pytest.raises(UsageError, match="whole structures"):
            METHODS[name].check_level(parse_level(text))


def test_a_fraction_that_leaves_nothing_names_the_largest_that_fits() -> None:
    """One inner block of three cannot lose half of all weights; the message says what it can."""
    model = tiny()
    with pytest.raises(UsageError, match=r"its 1 pruned blocks would have to lose .* fractions up to (0\.\d+) fit") as caught:
        METHODS["llm-pruner"].check_config(model.config, parse_level("0.5"))
    largest = str(caught.value).split("up to ")[1].split(" ")[0]
    METHODS["llm-pruner"].check_config(model.config, parse_level(largest))


def test_inconsistent_shapes_violate_the_post_conditions() -> None:
    """A head too many or a stream of another width stops the run."""
    pruner, slicer, data = METHODS["llm-pruner"], METHODS["slicegpt"], tiny_data()
    model = tiny()
    statistics = collect_importance(model, data)
    model.model.layers[1].mlp.down_proj.weight.data = torch.zeros(64, 5)
    with pytest.raises(PostConditionError, match="MLP projections do not fit"):
        pruner.verify(model, Job(parse_level("0.2"), {"blocks": [1, 2]}, data, 0, statistics))
    with pytest.raises(PostConditionError, match=r"decoder layer 0 reads and writes a stream of width \[64\] instead of 48"):
        slicer.verify(tiny(), Job(parse_level("0.25"), {"head": "whole"}, data, 0, statistics))
    assert sliced_width(model.config, parse_level("0.25")) == 48
    assert len(target_layers(model)) == 21
