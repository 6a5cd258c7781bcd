"""Methods on single weights in other families than Llama's: what they reach, and that they see the inputs of the whole forward pass."""

import re
from typing import Any

import pytest
from model_zoo import COMPRESSED, SINGLE_WEIGHTS, TABLE, compressed, documented, family_config, family_model
from producer_tiny import tiny_data

from producer.methods import METHODS
from producer.methods.shared.architectures import LLAMA_LAYERS, linear_shapes, unknown_architecture
from producer.methods.shared.contract import Job
from producer.methods.shared.layerwise import first_inputs
from producer.methods.shared.linear_layers import decoder_layers, kept_layers, reached, target_layers
from producer.methods.shared.make_linear import make_linear
from producer.methods.shared.post_conditions import verify_reach, verify_same
from producer.methods.smoothquant import smooth
from schemas.errors import PostConditionError, UsageError
from schemas.levels import parse_level

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.producer
QUICK = ("gpt2", "mixtral", "gemma3_text")
CASES = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in COMPRESSED]


@pytest.mark.parametrize("method", SINGLE_WEIGHTS)
@pytest.mark.parametrize("family", CASES)
def test_every_method_on_single_weights_compresses_what_people_ship(family: str, method: str) -> None:
    """Its post-conditions hold, and it reaches nearly all numbers in the decoder layers' matrices."""
    assert compressed(family, method).conditions["share_of_matrices"] > 0.95


def test_the_page_names_the_tested_families() -> None:
    """docs/models.md says which families are tested."""
    assert {family for family, row in documented().items() if row[1] == "tested"} == set(COMPRESSED)


def test_the_page_names_the_types_with_the_layers_of_llama() -> None:
    """Methods that move numbers between layers know these types; the page lists all of them."""
    page = TABLE.read_text(encoding="utf-8").partition("the layers of Llama:")[2].partition("tests show")[0]
    assert set(re.findall(r"`(\w+)`", page)) == set(LLAMA_LAYERS)


@pytest.mark.parametrize("family", [pytest.param(name, marks=[] if name == "ministral" else pytest.mark.slow) for name in LLAMA_LAYERS])
def test_moving_numbers_between_layers_changes_no_logit(family: str) -> None:
    """Smoothing, rotating (checked by quarot itself) and slicing or removing nothing leave the function as it was, in each such type."""
    data, ids = tiny_data(), torch.tensor(tiny_data().input_ids)
    model = make_linear(family_model(family))
    with torch.no_grad():
        dense = model(input_ids=ids, use_cache=False).logits
        smooth(model, Job(parse_level("w8a8"), {"smoothing": 0.5}, data, 0))
        smoothed = model(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(smoothed, dense, atol=2e-5, rtol=0)
    for method, level in (("slicegpt", "0"), ("llm-pruner", "0")):
        assert METHODS[method].apply(family_model(family), parse_level(level), data, 0).conditions["logit_change"] < 1e-5
    for method, level in (("quarot", "w8a8"), ("smoothquant", "w8a8"), ("awq", "w8a16-g8"), ("slicegpt", "0.2"), ("llm-pruner", "0.1")):
        assert 0 < METHODS[method].apply(family_model(family), parse_level(level), data, 0).conditions["logit_change"] < 0.5


@pytest.mark.parametrize("family", ["gpt2", "mixtral", "gpt_oss", "falcon"])
def test_rounding_reaches_the_matrices(family: str) -> None:
    """GPT-2's transposed layers and fused experts are rounded: at most 16 values in a group of 8 for 4 bits, and nearly all numbers."""
    applied = compressed(family, "rtn")
    assert applied.conditions["share_of_matrices"] > 0.99
    before = target_layers(make_linear(family_model(family)))
    assert before.keys() == target_layers(applied.model).keys()
    for name, layer in target_layers(applied.model).items():
        assert not torch.equal(layer.weight, before[name].weight), name


@pytest.mark.parametrize("family", CASES)
def test_shapes_from_the_config_are_those_of_the_model(family: str) -> None:
    """The shapes by which group sizes are checked before weights are loaded are those of the layers that are compressed."""
    shapes, model = linear_shapes(family_config(family)), make_linear(family_model(family))
    assert {tuple(layer.weight.shape) for layer in target_layers(model).values()} == {tuple(shape) for shape in shapes.values()}


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss", "qwen3_next", "gpt2", "falcon", "deepseek_v3"])
def test_linear_layers_compute_what_the_model_computed(family: str) -> None:
    """Taking experts apart and transposing changes logits by rounding only, and leaves routers and head as they are."""
    ids = torch.tensor(tiny_data(2).input_ids)
    model = family_model(family)
    with torch.no_grad():
        dense = model(input_ids=ids, use_cache=False).logits
        linear = make_linear(model)(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(linear, dense, atol=1e-5, rtol=0)
    assert all("lm_head" in name or "gate" in name for name in kept_layers(model))


@pytest.mark.parametrize("family", ["gemma3_text", "olmo3", "gpt2", "falcon", "mixtral", "qwen3_next", "granite", "deepseek_v3"])
def test_wanda_ranks_by_the_inputs_of_the_whole_forward_pass(family: str) -> None:
    """In every layer, behind those already pruned, the mask is |W| times the norm of the inputs that a whole forward pass gives."""
    data = tiny_data(8)
    dense, after = make_linear(family_model(family)), METHODS["wanda"].apply(family_model(family), parse_level("0.5"), data, 0).model
    checked = 0
    for (prefix, layer), pruned in zip(decoder_layers(dense).items(), decoder_layers(after).values(), strict=True):
        inputs = _inputs(dense, prefix, data)
        for name, target in target_layers(dense).items():
            if name in inputs and len(inputs[name]) >= 8 * 24:  # an expert that sees few tokens here saw all of them there
                score = target.weight.double().abs() * inputs[name].square().sum(0).sqrt()
                expected = score.argsort(1)[:, : round(score.shape[1] / 2)].sort(1).values
                zeros = (target_layers(after)[name].weight == 0).nonzero()[:, 1].reshape(len(score), -1)
                assert (expected == zeros).float().mean() > 0.99, name  # nearly equal scores may be ordered by rounding
                checked += 1
        layer.load_state_dict(pruned.state_dict())
    assert checked >= 6


def _inputs(model: Any, prefix: str, data: Any) -> dict[str, Any]:
    """Return the inputs of one decoder layer's linear layers, (token, column) float64."""
    seen: dict[str, list[Any]] = {}
    hooks = [
        target.register_forward_pre_hook(lambda _, args, name=name: seen.setdefault(name, []).append(args[0].double().flatten(0, -2)))
        for name, target in target_layers(model).items()
        if name.startswith(f"{prefix}.")
    ]
    with torch.no_grad():
        model(input_ids=torch.tensor(data.input_ids), use_cache=False)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts) for name, parts in seen.items()}


def test_layers_that_pass_on_more_than_hidden_states_are_refused() -> None:
    """HRM runs its layers more than once; the sentence names methods that do without data."""
    with pytest.raises(UsageError, match=r"'hrm_text' do more between their layers .* \(magnitude and rtn need none\)"):
        compressed("hrm_text", "wanda")
    assert compressed("hrm_text", "rtn").conditions["logit_change"] > 0


def test_matrices_that_are_no_linear_layers_are_named_before_weights() -> None:
    """JetMoE's experts cannot be taken apart: the share and the names are known from the config, and checked again on the model."""
    problem = unknown_architecture(family_config("jetmoe"))
    assert "out of reach: mlp.input_linear.weight" in problem or "out of reach: self_attention.experts.input_linear.weight" in problem
    model = family_model("jetmoe")
    with pytest.raises(PostConditionError, match="of the numbers in its decoder layers' matrices"):
        verify_reach(model)
    assert 0 < reached(model).share < 0.9


def test_linear_layers_that_compute_something_else_are_refused() -> None:
    """A change of a thousandth of the range is no rounding in float32."""
    dense = torch.linspace(0, 1, 7)
    verify_same(dense, dense, family_model("llama"))
    verify_same(dense / 0, dense / 0, family_model("llama"))  # NaN and infinities, unchanged
    with pytest.raises(PostConditionError, match=r"type 'llama' as linear layers changed logits by 0.002 of their range"):
        verify_same(dense + 0.002, dense, family_model("llama"))


def test_hooks_of_the_caller_do_not_see_the_comparison() -> None:
    """Methods count inputs with hooks; the pass that checks the layers one by one must not be counted."""
    model, seen = family_model("gpt2"), []
    hook = next(iter(target_layers(make_linear(model)).values())).register_forward_pre_hook(lambda *_: seen.append(1))
    states, arguments = first_inputs(model, [torch.tensor(tiny_data(2).input_ids)])
    hook.remove()
    assert seen == [] and [len(of_layers) for of_layers in arguments] == [3] and states[0].shape == (2, 24, 64)
