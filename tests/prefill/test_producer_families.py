"""Every family of causal language models: option logits are those of its own float32 forward pass, whichever path answers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_zoo import asked, documented, families, family_config, family_model, path
from producer_prefill import OPTIONS, plain, some_prompts
from producer_standin import save_standin, urn_rows, write_items
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

import producer.engine.whole_model
from producer.backends import BACKENDS
from producer.engine.admission import CHECKED, FAST, GENERIC, TESTED, agree, route_of
from producer.engine.answer import answer
from producer.engine.layer_source import Target
from producer.engine.prefill import Answers
from producer.engine.settings import Settings
from producer.engine.whole_model import prefill_whole
from producer.models.unread_settings import unread_settings
from producer.prompts.encode import Prompts
from schemas.errors import UsageError

pytestmark = pytest.mark.producer
PATHS = {family: row[0] for family, row in documented().items()}
ROUNDING = {"qwen3_5_moe_text": 2e-5}  # 1.003e-5 was seen: its linear attention sums in another order from the cache
CASES = [pytest.param(name, marks=[] if name in TESTED else pytest.mark.slow) for name in families()]


def whole(model: Any, prompts: Prompts, batch_tokens: int = 0) -> Answers:
    return prefill_whole(model, prompts, OPTIONS, "cpu", lambda _: None, batch_tokens)


@pytest.mark.parametrize("family", CASES)
def test_every_family_gives_the_logits_of_its_own_forward_pass(family: str) -> None:
    """Windows, experts, scales, caps, shared prefix and truncated items included; the path is the one that the documentation names."""
    model, prompts = family_model(family), some_prompts(9, n_prefix=20)
    expected, answers = plain(model, prompts), asked(model)
    np.testing.assert_allclose(answers.logits, expected[:, OPTIONS], atol=ROUNDING.get(family, 1e-5), rtol=0)
    np.testing.assert_allclose(answers.logsumexp, np.log(np.exp(expected.astype(float)).sum(1)), atol=1e-5)
    np.testing.assert_array_equal(answers.top_token, expected.argmax(1))
    assert path(answers) == PATHS[family]


def test_every_admitted_type_is_a_tested_family() -> None:
    """A type listed in TESTED without a row in the table would go untested; at least 60 families are in the table."""
    assert set(TESTED) <= set(families())
    assert {name for name in families() if PATHS[name] == f"the {FAST}"} == set(TESTED)
    assert len(families()) >= 60


def test_scales_that_the_engine_reads_differently_are_noticed() -> None:
    """HyperCLOVA X multiplies logits where Granite divides: the first items say so, and its own forward pass answers."""
    model = family_model("hyperclovax")
    assert path(asked(model)).startswith(f"{GENERIC}, since the prefill engine gives other logits")
    model = family_model("hyperclovax", logits_scaling=1.0)
    answers, expected = asked(model), plain(model, some_prompts(9, n_prefix=20))
    assert path(answers) == f"the {CHECKED}"
    np.testing.assert_allclose(answers.logits, expected[:, OPTIONS], atol=1e-5)


OTHERS = {
    "sliding_window": 4, "final_logit_softcapping": 2.0, "logit_scale": 0.1, "logits_scaling": 5.0, "embedding_multiplier": 3.0,
    "layer_types": ["sliding_attention"] * 3,
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_settings_of_another_family_change_nothing(name: str) -> None:
    """A Llama's config that keeps Mistral's window or Gemma's cap: its own forward pass ignores them, and so does the engine."""
    model, prompts = family_model("llama", **{name: OTHERS[name]}), some_prompts(9, n_prefix=20)
    assert getattr(model.config, name) == OTHERS[name]
    answers = asked(model)
    assert path(answers) == f"the {FAST}"
    np.testing.assert_allclose(answers.logits, asked(family_model("llama")).logits, atol=1e-6)
    if name != "layer_types":  # with which transformers makes a cache for windows, and then misses their size
        np.testing.assert_allclose(answers.logits, plain(model, prompts)[:, OPTIONS], atol=2e-5, rtol=0)
    assert unread_settings(model.config) == [f"{name} = {OTHERS[name]}"]


def test_what_a_family_reads_is_not_called_unread() -> None:
    """Each family with the settings that its own class gives it, and a window that is turned off."""
    assert {name: unread_settings(family_config(name)) for name in families()} == {name: [] for name in families()}
    assert unread_settings(family_config("llama", sliding_window=4, use_sliding_window=False)) == []
    assert unread_settings(family_config("llama", layer_types=["full_attention"] * 3)) == []


def test_a_rotary_factor_without_a_type_is_named() -> None:
    """transformers takes no type for no scaling, and the factor has no effect; it is the same as without, and said."""
    plainly, untyped = ({"rope_theta": 1e4, "rope_type": "default"} | more for more in ({}, {"factor": 4.0}))
    config = family_config("llama", rope_parameters=untyped)
    assert unread_settings(config) == ["rope_scaling factor = 4.0 without a type"]
    answers = [asked(family_model("llama", rope_parameters=each)).logits for each in (plainly, untyped)]
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize(
    ("family", "rope"),
    [
        ("llama", {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 16}),
        ("phi3", {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "rope_theta": 10000.0,
                  "original_max_position_embeddings": 16}),
    ],
)  # fmt: skip
def test_rotary_embeddings_that_depend_on_length_are_those_of_each_prompt(family: str, rope: dict[str, Any]) -> None:
    """Prompts shorter and longer than the original context, in any order: each as if it were asked alone by a new model."""
    changes = {"rope_parameters": rope, "max_position_embeddings": 16 if rope["rope_type"] == "dynamic" else 64}
    rng = np.random.default_rng(0)
    lengths = [30, 3, 20, 16, 25, 17, 30, 9]
    prompts = Prompts((), [rng.integers(3, 128, length).tolist() for length in lengths], [False] * len(lengths))
    expected = [plain(family_model(family, **changes), prompts.only([i]))[0] for i in range(len(lengths))]
    model = family_model(family, **changes)
    assert route_of(model.config, loaded=True).path == GENERIC
    for _ in range(2):
        np.testing.assert_allclose(whole(model, prompts).logits, np.array(expected)[:, OPTIONS], atol=1e-5)
    shared = Prompts(tuple(prompts.suffixes[1]), [suffix[3:] for suffix in prompts.suffixes[:1]] * 3, [False] * 3)
    np.testing.assert_allclose(whole(model, shared).logits, plain(family_model(family, **changes), shared)[:, OPTIONS], atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "mamba", "qwen3_next"])
@pytest.mark.parametrize("batch_tokens", [0, 1, 64])
def test_batch_size_and_sharing_do_not_matter(family: str, batch_tokens: int) -> None:
    """Attention, a state space and a hybrid: in batches of any size, without a prefix, all truncated, or a single item."""
    model = family_model(family)
    for prompts in (some_prompts(7, n_prefix=20), some_prompts(n_prefix=0, cut=0), some_prompts(cut=7), some_prompts(1)):
        np.testing.assert_allclose(whole(model, prompts, batch_tokens).logits, plain(model, prompts)[:, OPTIONS], atol=2e-5)


def test_a_cache_that_does_not_continue_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where continuing from the cache gives other logits, prompts are computed whole, and counted so."""
    model, prompts = family_model("gpt2"), some_prompts(7, n_prefix=20, cut=0)
    assert whole(model, prompts).tokens == prompts.tokens
    real = producer.engine.whole_model._repeated

    def broken(cache: Any, n_items: int) -> Any:
        copy = real(cache, n_items)
        copy.layers[1].values = copy.layers[1].values.flip(2)
        return copy

    monkeypatch.setattr(producer.engine.whole_model, "_repeated", broken)
    answers = whole(model, prompts)
    assert answers.tokens == sum(len(prompts.whole(i)) for i in range(7))
    np.testing.assert_allclose(answers.logits, plain(model, prompts)[:, OPTIONS], atol=1e-5)


def test_out_of_memory_halves_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more than two prompts at once run out of memory, every item is still answered once."""
    model, finished = family_model("gpt2"), []
    prompts = Prompts((), [[3, 4, 5, 6 + i] for i in range(9)], [False] * 9)
    expected, real = plain(model, prompts), model.forward

    def scarce(input_ids: Any, **rest: Any) -> Any:
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("injected")
        return real(input_ids=input_ids, **rest)

    monkeypatch.setattr(model, "forward", scarce)
    answers = prefill_whole(model, prompts, OPTIONS, "cpu", finished.append)
    np.testing.assert_allclose(answers.logits, expected[:, OPTIONS], atol=1e-5)
    assert (sum(finished), max(finished)) == (9, 2)


def test_sixteen_bits_leave_the_head_in_float32() -> None:
    """Logits of a bfloat16 model are float32 products of its hidden states, so that options do not tie by rounding."""
    model, prompts = family_model("gpt2").to(torch.bfloat16), some_prompts(40, n_prefix=20)
    logits = whole(model, prompts).logits
    assert "forward" not in vars(model.get_output_embeddings())
    assert not np.array_equal(logits, torch.tensor(logits).bfloat16().float().numpy())
    np.testing.assert_allclose(logits, plain(model.float(), prompts)[:, OPTIONS], atol=0.1)


def test_agreement_is_rounding_and_no_more() -> None:
    """A relative change of 1e-3 is no rounding in float32 and may be in bfloat16; two NaNs agree, a NaN and a number do not."""
    numbers = Answers(np.array([[10.0, -3.0]]), np.array([11.0]), np.array([0]), 1, 0.0)
    other = replace(numbers, logits=np.array([[10.01, -3.0]]))
    assert agree(numbers, numbers, torch.float32)
    assert not agree(numbers, other, torch.float32)
    assert agree(numbers, other, torch.bfloat16)
    unknown = replace(numbers, logits=np.array([[np.nan, -3.0]]))
    assert agree(unknown, unknown, torch.float32)
    assert not agree(unknown, numbers, torch.float32)


def test_a_type_that_is_not_tested_is_compared_on_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the engine would attend to nothing before, the comparison notices; on a model on the host there is none, so it is not used."""
    monkeypatch.setattr("producer.engine.admission.TESTED", ())
    model = family_model("llama")
    assert path(asked(model)) == f"the {CHECKED}"
    assert route_of(model.config, loaded=False).path == GENERIC
    monkeypatch.setattr("producer.engine.skeleton._windows", lambda config, kinds, n_layers: (4,) * n_layers)
    answers = asked(model)
    assert path(answers).startswith(GENERIC)
    np.testing.assert_allclose(answers.logits, plain(model, some_prompts(9, n_prefix=20))[:, OPTIONS], atol=1e-5)


def test_a_model_that_needs_all_weights_in_memory_says_how_much() -> None:
    """Layer by layer is the engine's; without room for all weights a model of another build is refused with their size."""
    with pytest.raises(UsageError, match=r"type 'gpt2' need all their weights in memory, 1 MiB.*--device-memory"):
        answer(family_model("gpt2"), some_prompts(), OPTIONS, Target("cpu", torch.float32), Settings(), lambda _: None, loaded=False)


def test_the_noise_floor_of_the_generic_path_is_rounding() -> None:
    """One by one and without sharing, logits move by rounding only."""
    settings = Settings(self_check=5)
    answers = answer(
        family_model("gpt2"), some_prompts(9, n_prefix=20), OPTIONS, Target("cpu", torch.float32), settings, lambda _: None, loaded=True
    )
    assert answers.noise_floor["items"] == 5
    assert answers.noise_floor["logit_change"] < 2e-5


def test_what_transformers_cannot_load_is_refused_before_weights() -> None:
    """An encoder-decoder is no causal language model."""
    from transformers import T5Config

    with pytest.raises(UsageError, match="no causal language model of type 't5'"):
        BACKENDS["transformers"].check(T5Config(), ["dense"])


def test_attention_scores_are_capped_as_the_config_says() -> None:
    """Gemma 2 with SDPA would leave its cap out; loaded from files it gives the logits of the definition."""
    from producer.models.load import attention

    assert attention(family_config("gemma2")) == "eager"
    assert attention(family_config("gemma2", attn_logit_softcapping=None)) is None
    assert attention(LlamaConfig()) is None


@pytest.mark.parametrize(("family", "how"), [("gpt2", GENERIC), ("gpt_oss", GENERIC), ("llama4_text", CHECKED), ("cohere", FAST)])
def test_produce_stores_those_logits_and_the_path(family: str, how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a folder through the command into a store: equal to a plain forward pass of the saved model on the same tokens."""
    from click.testing import CliRunner

    from producer.cli.main import main
    from producer.request.request import Request
    from producer.run.plan import make_plan
    from store import open_reader

    folder = save_standin(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    family_model(family, vocab_size=len(tokenizer), max_position_embeddings=512).save_pretrained(folder)
    items = write_items(tmp_path / "items.json", urn_rows(8))
    store = str(tmp_path / "store")
    where = ["--store", store, "--device", "cpu", "--dtype", "float32"]
    done = CliRunner().invoke(main, ["--model", str(folder), "--task", str(items), *where])
    assert done.exit_code == 0, done.output
    run = open_reader(store).run(done.stdout.strip())
    request = Request(models=(str(folder),), methods=("dense",), tasks=(str(items),), dtype="float32", device="cpu")
    prompted = make_plan(request)[0].runs[0].prompted
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    expected = plain(model, prompted.prompts)[:, list(prompted.options.ids)]
    np.testing.assert_allclose(run.logits, expected, atol=1e-5)
    path_notes = [note.removeprefix("answered by ").removeprefix("the ") for note in run.env.notes if note.startswith("answered by")]
    assert [note.startswith(how.removeprefix("the ")) for note in path_notes] == ([] if how == FAST else [True])
