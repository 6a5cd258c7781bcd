"""The prefill engine: the same numbers as one plain forward pass per prompt, whatever is shared, batched or cut."""

import time
from typing import Any

import numpy as np
import pytest
import torch
from producer_prefill import OPTIONS, plain, run, some_prompts
from producer_tiny import CONFIGS, SIZES, tiny
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

from producer.engine.attention import NOT_COMPUTED, SharedPrefix, attend
from producer.engine.waves import MAX_WASTE, padding_share, plan_batches
from schemas.errors import HedgemarkError

pytestmark = pytest.mark.producer


@pytest.mark.parametrize("name", CONFIGS)
def test_the_engine_agrees_with_a_plain_forward_pass(name: str) -> None:
    """Option logits, log-sum-exp and top token equal those of the model's own forward pass, prompt by prompt."""
    model, prompts = tiny(name), some_prompts()
    answers, whole = run(model, prompts), plain(model, prompts)
    np.testing.assert_allclose(answers.logits, whole[:, OPTIONS], atol=2e-5, rtol=1e-5)
    np.testing.assert_allclose(answers.logsumexp, np.log(np.exp(whole.astype(float)).sum(1)), rtol=1e-5)
    np.testing.assert_array_equal(answers.top_token, whole.argmax(1))


@pytest.mark.parametrize("tokens", [1, 13, 10_000])
def test_batch_size_moves_logits_by_rounding_only(tokens: int) -> None:
    """One item at a time or all at once, the logits differ by rounding only."""
    model, prompts = tiny(), some_prompts(20)
    np.testing.assert_allclose(run(model, prompts, tokens).logits, run(model, prompts).logits, atol=2e-5)


def test_a_sliding_window_is_kept_across_the_shared_prefix() -> None:
    """A window shorter than the prompt hides the same tokens as in the model's own forward pass."""
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=6)).eval()
    prompts = some_prompts()
    np.testing.assert_allclose(run(model, prompts).logits, plain(model, prompts)[:, OPTIONS], atol=2e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_without_a_kernel_that_merges_the_prefix_comes_before_the_keys(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Float32 on a GPU has no kernel that returns the log-sum-exp: the other way gives the same logits."""
    monkeypatch.setattr("producer.engine.step.can_merge", lambda *_: False)
    model, prompts = tiny(name), some_prompts()
    np.testing.assert_allclose(run(model, prompts).logits, plain(model, prompts)[:, OPTIONS], atol=2e-5)


def test_a_gpu_kernel_takes_what_attention_gives_it() -> None:
    """FlashAttention's signature and shapes, with tensors that hold no numbers: any device but the CPU takes this way."""
    query = torch.empty(3, 4, 5, 16, dtype=torch.bfloat16, device="meta")
    key = torch.empty(3, 2, 5, 16, dtype=torch.bfloat16, device="meta")
    shared = SharedPrefix((key[:1], key[:1]))
    out, weights = attend(None, query, key, key, None, 0.25, shared)
    assert (out.shape, out.dtype, weights) == ((3, 5, 4, 16), torch.bfloat16, None)


@pytest.mark.parametrize("window", [None, 6, 90])
def test_a_prefix_longer_than_a_batch_goes_through_in_parts(window: int | None) -> None:
    """Each part looks at the parts before it, within the window where there is one; its activations never exceed a batch's."""
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=window)).eval()
    prompts = some_prompts(n_prefix=150)
    np.testing.assert_allclose(run(model, prompts, tokens=64).logits, plain(model, prompts)[:, OPTIONS], atol=2e-5)


def test_prompts_without_a_shared_prefix_are_answered() -> None:
    """Items that share nothing, and items that all were cut, need no prefix."""
    model = tiny()
    for prompts in (some_prompts(n_prefix=0, cut=0), some_prompts(cut=7)):
        np.testing.assert_allclose(run(model, prompts).logits, plain(model, prompts)[:, OPTIONS], atol=2e-5)


@pytest.mark.parametrize("streamed", [False, True])
def test_batches_side_by_side_give_the_same_logits(streamed: bool) -> None:
    """Four batches at a time or one, the logits differ by rounding only, and torch has as many threads afterwards as before."""
    model, prompts, threads = tiny(), some_prompts(40), torch.get_num_threads()
    answers = run(model, prompts, streamed=streamed, wave_tokens=100, workers=4)
    np.testing.assert_allclose(answers.logits, plain(model, prompts)[:, OPTIONS], atol=2e-5)
    assert torch.get_num_threads() == threads


def test_few_items_are_divided_among_the_workers() -> None:
    """Items that would fill one batch are cut into as many as there are workers, so that no core looks on."""
    together: list[int] = []
    run(tiny(), some_prompts(8, cut=0), 10_000, together.append, workers=4)
    assert together.count(0) >= 4 * len(tiny().model.layers)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("wave_tokens", [30, 10_000])
@pytest.mark.parametrize("workers", [1, 3])
def test_layer_major_order_gives_the_same_logits(name: str, wave_tokens: int, workers: int) -> None:
    """Layers copied to the device one at a time, in one wave or several, give the same logits, and the model is left as it was."""
    model, prompts = tiny(name), some_prompts(12)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    answers = run(model, prompts, streamed=True, wave_tokens=wave_tokens, workers=workers)
    np.testing.assert_allclose(answers.logits, plain(model, prompts)[:, OPTIONS], atol=2e-5)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_layer_major_order_runs_in_another_dtype_than_the_files() -> None:
    """Weights stored on the host in bfloat16 are copied to the device as float32, and computed in it."""
    model, prompts = tiny(dtype=torch.bfloat16), some_prompts()
    np.testing.assert_allclose(run(model, prompts, streamed=True).logits, plain(model.float(), prompts)[:, OPTIONS], atol=2e-5)


@pytest.mark.parametrize("plan", [{}, {"workers": 3}, {"streamed": True, "wave_tokens": 10_000}])
def test_out_of_memory_halves_the_batch_and_loses_nothing(
    plan: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """From some layer on, more than two items run out of memory; every item is still answered, once, and no layer is run again."""
    import producer.engine.prefill as engine

    real, finished, layers_run = engine.run_layer, [], []

    def scarce(layer: Any, window: int | None, rotary: Any, batch: Any, shared: Any) -> Any:
        if len(batch.items) > 2 and layer.self_attn.layer_idx > 0:
            raise torch.OutOfMemoryError("injected")
        layers_run.extend((item, layer.self_attn.layer_idx) for item in batch.items)
        return real(layer, window, rotary, batch, shared)

    model, prompts = tiny(), some_prompts(20)
    expected = run(model, prompts).logits
    monkeypatch.setattr(engine, "run_layer", scarce)
    answers = run(model, prompts, 10_000, finished.append, **plan)
    np.testing.assert_allclose(answers.logits, expected, atol=2e-5)
    assert sum(finished) == 20
    assert len(layers_run) == len(set(layers_run)) == 20 * len(model.model.layers)
    assert "out of memory" in caplog.text


def test_an_item_that_fits_alone_is_answered_though_two_at_once_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory runs out because several batches are under way, each goes again by itself."""
    import producer.engine.prefill as engine

    real, running, model, prompts = engine.run_layer, [], tiny(), some_prompts(6, cut=0)
    expected = run(model, prompts).logits

    def scarce(layer: Any, window: int | None, rotary: Any, batch: Any, shared: Any) -> Any:
        running.append(batch)
        try:
            time.sleep(0.01)
            if len(running) > 1:
                raise torch.OutOfMemoryError("injected")
            return real(layer, window, rotary, batch, shared)
        finally:
            running.pop()

    monkeypatch.setattr(engine, "run_layer", scarce)
    np.testing.assert_allclose(run(model, prompts, 1, workers=3).logits, expected, atol=2e-5)


@pytest.mark.parametrize("plan", [{}, {"streamed": True, "wave_tokens": 10_000}])
@pytest.mark.parametrize("recorded", [False, True])
def test_out_of_memory_in_the_shared_prefix_cuts_it(
    plan: dict[str, Any], recorded: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where more than three tokens of the prefix run out of memory, before or after keys were recorded, it goes in smaller parts."""
    import producer.engine.prefill as engine

    def scarce(layer: Any, window: int | None, rotary: Any, batch: Any, shared: Any) -> Any:
        too_long = not batch.items and batch.tokens > 3
        if recorded or not too_long:
            after = real(layer, window, rotary, batch, shared)
        if too_long:
            raise torch.OutOfMemoryError("injected")
        return after

    model, prompts, real = tiny(), some_prompts(), engine.run_layer
    expected = run(model, prompts).logits
    monkeypatch.setattr(engine, "run_layer", scarce)
    np.testing.assert_allclose(run(model, prompts, 10_000, **plan).logits, expected, atol=2e-5)
    assert "9 tokens of the shared prefix" in caplog.text


def test_memory_for_not_even_one_token_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """One item, and one token of the prefix, cannot be cut; the error gets through."""
    import producer.engine.prefill as engine

    def never(*_: object) -> Any:
        raise torch.OutOfMemoryError("injected")

    monkeypatch.setattr(engine, "run_layer", never)
    for n_prefix in (0, 9):
        with pytest.raises(torch.OutOfMemoryError, match="injected"):
            run(tiny(), some_prompts(n_prefix=n_prefix, cut=0))


def test_no_weights_are_taken_away_from_a_batch_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one batch fails in layer-major order, the others are through before the layer's weights go."""
    import producer.engine.prefill as engine

    model, seen = tiny(dtype=torch.bfloat16), []

    def slow(layer: Any, _: object, rotary: object, batch: Any, shared: object) -> Any:
        if 0 in batch.items:
            raise ValueError("this one")
        time.sleep(0.05)
        seen.append(layer.self_attn.q_proj.weight.dtype)
        return batch

    monkeypatch.setattr(engine, "run_layer", slow)
    with pytest.raises(ValueError, match="this one"):
        run(model, some_prompts(3, n_prefix=0, cut=0), 1, streamed=True, wave_tokens=10_000, workers=3)
    assert set(seen) == {torch.float32}


def test_an_unrelated_error_is_not_taken_for_scarce_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only running out of memory is met by smaller batches; any other failure ends the run."""
    import producer.engine.prefill as engine

    def broken(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(engine, "run_layer", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        run(tiny(), some_prompts())


def test_a_layer_that_hides_the_prefix_is_an_error() -> None:
    """A layer that drops attention arguments would answer without demonstrations; it is refused."""
    model = tiny()
    layer = model.model.layers[1]
    forward = layer.forward
    layer.forward = lambda hidden, shared=None, **rest: forward(hidden, **rest)
    with pytest.raises(HedgemarkError, match="without demonstrations"):
        run(model, some_prompts())


def test_a_model_of_other_parts_is_refused() -> None:
    """GPT-2 has no layers of this kind; the sentence names its type."""
    model = GPT2LMHeadModel(GPT2Config(vocab_size=128, n_embd=32, n_layer=1, n_head=2))
    with pytest.raises(HedgemarkError, match="type 'gpt2' is not made of embedding, decoder layers, norm and head"):
        run(model, some_prompts())


@pytest.mark.parametrize("argument", NOT_COMPUTED)
def test_attention_that_is_not_computed_here_is_refused(argument: str) -> None:
    """A cap on scores, or a sink, would be left out without a word."""
    query = torch.zeros(1, 2, 3, 16)
    with pytest.raises(HedgemarkError, match=f"asks for attention with {argument}"):
        attend(None, query, query, query, None, **{argument: torch.ones(2)})


def test_batches_hold_every_item_once_within_budget_and_waste() -> None:
    """Every item is in one batch, no batch of several items exceeds the budget, and at most 5 % of tokens are padding."""
    lengths = np.random.default_rng(0).integers(20, 400, 500).tolist()
    batches = plan_batches(lengths, 2048)
    assert sorted(item for batch in batches for item in batch) == list(range(500))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 2048 for batch in batches)
    assert padding_share(batches, lengths) <= MAX_WASTE


def test_an_item_longer_than_the_budget_is_a_batch_of_its_own() -> None:
    """The budget bounds batches, not items."""
    assert plan_batches([10, 50, 10], 20) == [[1], [0, 2]]
    assert padding_share([], []) == 0.0
