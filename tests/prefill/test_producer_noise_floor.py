"""The noise floor: rounding where nothing else changes, a difference where there is one, and only over options that an item has."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from producer_prefill import OPTIONS, run, some_prompts
from producer_tiny import tiny

from producer.engine.layer_source import Target
from producer.engine.memory_plan import MemoryPlan
from producer.engine.noise_floor import noise_floor, sample, unshared
from producer.engine.prefill import Answers
from producer.prompts.encode import Prompts

pytestmark = pytest.mark.producer
PLAN = MemoryPlan(streamed=False, batch_tokens=64, wave_tokens=0, states_device="cpu", head_rows=64)


def test_the_noise_floor_is_rounding() -> None:
    """One by one, unshared or layer-major, logits of a float32 model move by rounding only and nothing flips."""
    floor = noise_floor(tiny(), sample(some_prompts(12), 8, 0), OPTIONS, PLAN, Target("cpu", torch.float32))
    assert floor["items"] == 8
    assert 0 < floor["logit_change"] < 2e-5
    assert floor["flips"] == 0


def test_the_noise_floor_sees_a_difference() -> None:
    """In bfloat16 the same check reports a change hundreds of times larger: it does not measure nothing."""
    floor = noise_floor(tiny(dtype=torch.bfloat16), some_prompts(12), OPTIONS, PLAN, Target("cpu", torch.bfloat16))
    assert floor["logit_change"] > 1e-3


def test_unshared_prompts_ask_the_same() -> None:
    """Taking the sharing away leaves every item's tokens as they were, and its answers too."""
    prompts = some_prompts(6)
    alone = unshared(prompts)
    assert [alone.whole(i) for i in range(6)] == [prompts.whole(i) for i in range(6)]
    np.testing.assert_allclose(run(tiny(), alone).logits, run(tiny(), prompts).logits, atol=2e-5)


def floor_of(logits: np.ndarray, moved: np.ndarray, n_options: list[int], monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Return the noise floor where the usual plan gives some logits (item, option) and one item at a time gives others."""

    def answer(_: Any, asked: Prompts, __: Any, how: MemoryPlan, *___: Any) -> Answers:
        return Answers(moved if how.batch_tokens == 1 else logits, np.zeros(2), np.zeros(2), 0, 0.0)

    monkeypatch.setattr("producer.engine.noise_floor.prefill", answer)
    prompts = replace(some_prompts(len(logits)), n_options=n_options)
    return noise_floor(None, prompts, OPTIONS, PLAN, Target("cpu", torch.float32))


def test_letters_that_an_item_does_not_have_count_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """However large and restless the logits beyond an item's own options are, no change, no flip and no set shows them."""
    logits = np.array([[1, 0, 9, 0], [1, 0, 0, 9], [0, 1, 2, 3]], np.float32)
    moved = np.array([[1, 0, 0, 9], [1, 0, 9, 0], [0, 1, 2, 3]], np.float32)
    assert floor_of(logits, moved, [2, 2, 4], monkeypatch) == {"items": 3, "logit_change": 0, "flips": 0, "set_size": 0}
    assert floor_of(logits, moved, [], monkeypatch)["flips"] == pytest.approx(2 / 3)


def test_what_moves_among_an_items_own_options_counts_golden(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: of three items one flips by a logit that moves by 3, and the next one's options tie above the threshold: an empty set."""
    logits = np.array([[1, 0, 9, 9], [1, 0, 9, 9], [0, 0, 0, 9]], np.float32)
    moved = np.array([[1, 3, 5, 5], [1, 1, 9, 9], [0, 0, 0, 9]], np.float32)
    floor = floor_of(logits, moved, [2, 2, 4], monkeypatch)
    assert (floor["logit_change"], floor["flips"], floor["set_size"]) == (3, pytest.approx(1 / 3), pytest.approx(1 / 3))


def test_a_sample_keeps_each_items_options() -> None:
    """Items drawn, and prompts asked whole, have the options that they had; where none are given none are made up."""
    prompts = replace(some_prompts(9), n_options=range(1, 10))
    drawn = sample(prompts, 4, 0)
    assert [prompts.suffixes[n - 1] for n in drawn.n_options] == drawn.suffixes
    assert unshared(drawn).n_options == drawn.n_options
    assert not sample(some_prompts(9), 4, 0).n_options
