"""The embedded tasks and models: items from a seed, a known optimum, and models that have learned what they should."""

from pathlib import Path

import numpy as np
import pytest

from producer.prompts.templates import PROMPTS, instruction_for, render_item, render_prefix
from producer.reference.tokenizer import vocabulary
from producer.tasks.facts import BANDS, facts
from producer.tasks.urn import bayes_posterior, urn
from schemas.items import Item

pytestmark = pytest.mark.producer
MODELS = Path(__file__).parents[2] / "producer/reference/models"
NAMES = ("ref-s", "ref-m", "ref-l", "ref-moe")
DEMONSTRATIONS = (1, 3, 5, 7, 9)


def prompts_of(items: list[Item], task: str, prompt: str) -> list[str]:
    prefix = render_prefix(instruction_for(task, prompt), [items[i] for i in DEMONSTRATIONS])
    return [prefix + render_item(item) for item in items[10:]]


def option_probs(name: str, texts: list[str]) -> np.ndarray:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODELS / name)
    model = AutoModelForCausalLM.from_pretrained(MODELS / name, dtype=torch.float32).eval()
    options = [tokenizer.encode(f"Answer: {letter}")[-1] for letter in "ABCDEF"]
    rows = []
    with torch.inference_mode():
        for ids in (tokenizer.encode(text, return_tensors="pt") for text in texts):
            rows.append(torch.softmax(model(ids).logits[0, -1, options].double(), -1).numpy())
    return np.array(rows)


@pytest.mark.parametrize("task", [urn, facts])
def test_items_depend_on_the_seed_alone(task: object) -> None:
    """The same seed gives the same items; another seed gives others."""
    assert task(50) == task(50) != task(50, seed=1)


def test_bayes_posterior_is_calibrated() -> None:
    """Over many items the posterior equals the frequency of the answer: its mean error is within four standard errors of zero."""
    items = urn(20_000, seed=3)
    posterior = np.array([bayes_posterior(item) for item in items])
    truth = np.eye(6)[[item.answer_index for item in items]]
    for weight in (np.ones_like(posterior), posterior):
        error = (weight * (truth - posterior)).sum(0)[[0, 1, 2, 3, 5]]
        spread = np.sqrt((weight**2 * posterior * (1 - posterior)).sum(0))[[0, 1, 2, 3, 5]]
        assert np.all(np.abs(error) < 4 * spread)
    assert np.all(posterior[:, 4] == 0)


def test_bayes_posterior_by_hand_golden() -> None:
    """One draw: the posterior of a listed urn is proportional to its share of that colour times (5/6)/4, unlisted (1/6)/2."""
    from producer.tasks.urn import SHARES, URNS

    choices = dict(zip("ABCDEF", [*URNS[:4], "I don't know", "None of the above"], strict=True))
    found = bayes_posterior(Item(id="1", answer="A", question="Which urn gave red?", choices=choices))
    joint = np.array([*(SHARES[:4, 0] * 5 / 24), 0, SHARES[4:, 0].sum() / 12])
    assert np.allclose(found, joint / joint.sum(), atol=1e-15)


def test_no_text_of_the_tasks_is_unknown_to_the_tokenizer() -> None:
    """Every item and every prompt of both tasks is spelled without the unknown token, and letters are single tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODELS / "ref-s")
    assert list(tokenizer.get_vocab()) and set(tokenizer.get_vocab()) == set(vocabulary())
    texts = [text for task, items in (("urn", urn(200)), ("facts", facts(200))) for p in PROMPTS for text in prompts_of(items, task, p)]
    assert not any(tokenizer.unk_token_id in ids for ids in tokenizer(texts)["input_ids"])


def test_all_weights_together_stay_small() -> None:
    """The four models are all there and take at most 12 MB."""
    files = list(MODELS.glob("*/model.safetensors"))
    assert {file.parent.name for file in files} == set(NAMES)
    assert sum(file.stat().st_size for file in files) <= 12e6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ref-m", "ref-l"])
def test_urn_is_learned_to_within_a_twentieth_of_a_nat(name: str) -> None:
    """Mean excess cross-entropy over the Bayes posterior, paired on the embedded items, is at most 0.05 nats."""
    items = urn()
    probs = option_probs(name, prompts_of(items, "urn", "base"))
    answers = [item.answer_index for item in items[10:]]
    bayes = np.array([bayes_posterior(item)[item.answer_index] for item in items[10:]])
    excess = np.log(bayes) - np.log(probs[np.arange(len(answers)), answers])
    assert excess.mean() <= 0.05


@pytest.mark.slow
def test_facts_are_known_better_by_larger_models() -> None:
    """Accuracy on facts rises from ref-s over ref-m to ref-l, and every model knows common facts better than rare ones."""
    items = facts()
    answers = np.array([item.answer_index for item in items[10:]])
    right = {name: option_probs(name, prompts_of(items, "facts", "base")).argmax(1) == answers for name in NAMES}
    assert right["ref-s"].mean() < right["ref-m"].mean() < right["ref-l"].mean()
    band = np.arange(10, len(items)) % len(BANDS)
    assert all(right[name][band == 0].mean() > right[name][band == 3].mean() for name in NAMES)
