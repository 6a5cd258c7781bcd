"""AutoRound by its own library: what the library makes of the whole model, on its grid, closer than rounding, the same each time."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from producer_tiny import logits, tiny, tiny_data

from producer.methods import METHODS
from producer.methods.shared.compression_data import CompressionData, draw_compression_data
from producer.methods.shared.contract import Applied, Job
from producer.methods.shared.linear_layers import target_layers
from producer.methods.shared.make_linear import make_linear
from schemas.errors import PostConditionError, UsageError
from schemas.levels import parse_level

pytestmark = pytest.mark.producer
LAYER = "model.layers.1.mlp.down_proj"
REFERENCE = Path(__file__).parents[2] / "producer" / "reference" / "models"


@pytest.fixture(autouse=True)
def _library(request: pytest.FixtureRequest) -> None:
    if "without" not in request.node.name:
        pytest.importorskip("auto_round", reason="auto-round is not installed (extra [auto-round])")


def applied(level: str, name: str = "llama", seed: int = 0, **loaded: Any) -> Applied:
    return METHODS["autoround"].with_chosen({"steps": "5"}).apply(tiny(name, **loaded), parse_level(level), tiny_data(), seed)


@pytest.mark.filterwarnings("ignore")  # the library's
def whole_model(model: Any, data: CompressionData, bits: int, group: int, seed: int) -> Any:
    """Return a model that the library has compressed by its own loop over the decoder layers, on the same tokens."""
    from auto_round import AutoRound, QuantizationScheme, SignRoundConfig

    class Tokenizer:
        """Nothing is padding."""

        pad_token_id = -1

    rows: Any = [{"input_ids": torch.tensor(row)} for row in data.input_ids]
    scheme = QuantizationScheme(bits=bits, group_size=group, sym=False, act_bits=16)
    run = AutoRound(
        make_linear(model), tokenizer=Tokenizer(), dataset=torch.utils.data.DataLoader(rows, batch_size=1), scheme=scheme,
        alg_configs=SignRoundConfig(iters=5, lr=1 / 5), nsamples=len(rows), seqlen=len(data.input_ids[0]), batch_size=8, amp=False,
        device_map="cpu", seed=seed, low_gpu_mem_usage=True, enable_torch_compile=False,
    )  # fmt: skip
    try:
        with torch.enable_grad():
            run.quantize()
    finally:
        torch.use_deterministic_algorithms(False)
    return model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "bits", "group", "seed"), [("llama", 4, 32, 0), ("qwen3_moe", 3, 32, 0), ("qwen3", 2, -1, 5)])
def test_integers_are_those_of_the_librarys_own_run(name: str, bits: int, group: int, seed: int) -> None:
    """Layer by layer here, and the library's own run over the whole model: weights, scales and zero points are equal bit by bit."""
    expected = target_layers(whole_model(tiny(name), tiny_data(), bits, group, seed))
    found = target_layers(applied(f"w{bits}a16" + (f"-g{group}" if group > 0 else ""), name, seed).model)
    assert found.keys() == expected.keys()
    for at, layer in expected.items():
        assert torch.equal(layer.weight, found[at].weight), at
        assert torch.equal(layer.scale.float().reshape(len(layer.weight), -1), found[at].weight_scale), at
        assert torch.equal(layer.zp.reshape(len(layer.weight), -1) - 2 ** (bits - 1), found[at].weight_zero_point.float()), at


def test_the_same_seed_gives_the_same_model_and_leaves_the_process_as_it_was() -> None:
    """Twice the same bits; neither random numbers nor the choice of algorithms of the process are another afterwards."""
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state()
    models = [applied("w3a16-g32").model for _ in range(2)]
    for (name, one), other in zip(models[0].state_dict().items(), models[1].state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[:2] and torch.equal(torch.random.get_rng_state(), before[2])
    assert not torch.are_deterministic_algorithms_enabled()
    clean = vars(tiny().model.layers[0].mlp.up_proj).keys()
    assert vars(target_layers(models[0])["model.layers.0.mlp.up_proj"]).keys() == clean


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scales_have_16_bits_and_weights_lie_on_the_grid(dtype: torch.dtype) -> None:
    """A group of 32 weights of 3 bits has a scale of 16 bits and a zero point of 3: 3.59 bits a weight."""
    measured = applied("w3a16-g32", dtype=dtype)
    assert measured.conditions["bits_per_weight"] == 3 + 19 / 32
    layer = target_layers(measured.model)[LAYER]
    assert layer.weight.dtype == layer.weight_scale.dtype == dtype
    codes = (layer.weight.float().reshape(64, -1, 32) / layer.weight_scale.float()[..., None]).round() + layer.weight_zero_point[..., None]
    assert codes.min() >= -4 and codes.max() <= 3 and len(codes.unique()) == 8


def test_routers_keep_their_weights() -> None:
    """In a mixture of experts everything but the router is rounded."""
    before, after = tiny("qwen3_moe"), applied("w4a16-g32", "qwen3_moe").model
    for one, other in zip(before.model.layers, after.model.layers, strict=True):
        assert torch.equal(one.mlp.gate.weight, other.mlp.gate.weight) and not hasattr(other.mlp.gate, "weight_scale")
    assert len(target_layers(after)) == 3 * (4 + 3 * 4)


def test_what_a_checkpoint_could_not_store_is_found() -> None:
    """A weight off its grid, a scale of 32 bits, a zero point off the grid: each is named."""
    method, level = METHODS["autoround"], parse_level("w4a16-g32")
    measured = applied(level.text)
    layer, job = target_layers(measured.model)[LAYER], Job(level, measured.settings, None, 0)
    layer.weight.data[0, 0] += layer.weight_scale[0, 0] / 3
    with pytest.raises(PostConditionError, match=rf"layer {LAYER} at level 'w4a16-g32' is 0.33\d? steps off its 4-bit grid"):
        method.verify(measured.model, job)
    layer.weight_zero_point[0, 0] = 8
    with pytest.raises(PostConditionError, match=rf"layer {LAYER} at level 'w4a16-g32' has zero points off its 4-bit grid"):
        method.verify(measured.model, job)
    layer.weight_scale[0, 0] *= 1 + 1e-5
    with pytest.raises(PostConditionError, match=rf"layer {LAYER} at level 'w4a16-g32' has scales of more than 16 bits"):
        method.verify(measured.model, job)


def test_a_damaged_model_is_refused() -> None:
    """From outputs that are not finite nothing can be learned, and the library would round to nearest without a word."""
    model = tiny()
    target_layers(model)[LAYER].weight.data[0, 0] = float("inf")
    with pytest.raises(PostConditionError, match="decoder layer 1 gives numbers that are not finite, from which nothing can be learned"):
        METHODS["autoround"].with_chosen({"steps": "2"}).apply(model, parse_level("w4a16-g32"), tiny_data(), 0)


def test_layers_that_the_library_would_leave_are_refused_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """72 columns are no multiple of 32; other levels and layouts are refused like those of awq, and the extra is named."""
    method = METHODS["autoround"]
    with pytest.raises(UsageError, match=r"leaves self_attn\.q_proj with 72 rows and 72 columns as it is; both must be multiples of 32"):
        method.check_config(tiny("odd").config, parse_level("w4a16-g8"))
    with pytest.raises(UsageError, match="has no level 'w4a4'"):
        method.check_level(parse_level("w4a4"))
    with pytest.raises(UsageError, match="--set steps=0: method 'autoround' takes a whole number from 1 to 10000"):
        method.with_chosen({"steps": "0"})
    monkeypatch.setattr("producer.methods.shared.contract.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"'autoround' needs a library that is not installed: pip install 'hedgemark\[auto-round\]'"):
        method.check_config(tiny().config, parse_level("w4a16-g32"))


@pytest.mark.slow
@pytest.mark.parametrize("level", ["w3a16-g32", "w2a16-g32"])
def test_texts_move_less_than_by_rounding_to_nearest(level: str) -> None:
    """On ref-s, 64 fresh texts of the embedded tasks: the mean KL per token is smaller than rtn's by more than three standard errors."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def load() -> Any:
        return AutoModelForCausalLM.from_pretrained(REFERENCE / "ref-s", dtype=torch.float32).eval()

    tokenizer = AutoTokenizer.from_pretrained(REFERENCE / "ref-s")
    data, fresh = (draw_compression_data("embedded", tokenizer, sequences=n, seed=seed) for n, seed in ((32, 0), (64, 7)))
    dense, divergences = logits(load(), fresh.input_ids).log_softmax(-1), {}
    for name in ("rtn", "autoround"):
        method = METHODS[name].with_chosen({"steps": "100"})
        after = logits(method.apply(load(), parse_level(level), data, 0).model, fresh.input_ids).log_softmax(-1)
        divergences[name] = (dense.exp() * (dense - after)).sum(-1).mean(1)
    saved = divergences["rtn"] - divergences["autoround"]
    assert saved.mean() > 3 * saved.std() / len(saved) ** 0.5
