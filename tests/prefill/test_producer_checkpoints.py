"""Answers are kept while a model answers: every one once, as it is stored in the end, and waves are cut so that none takes too long."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from producer_prefill import OPTIONS, run, some_prompts
from producer_tiny import tiny

from producer.engine import prefill as engine
from producer.engine.checkpoints import EXTRA, Keep, WaveTime
from producer.engine.head import HeadOutput
from producer.engine.prefill import Answers
from producer.engine.waves import Waves
from producer.engine.whole_model import prefill_whole
from producer.machine.interrupt import Interrupted

pytestmark = pytest.mark.producer
STREAMED = {"streamed": True, "wave_tokens": 10_000}
Answered = Callable[..., Answers]


class Kept:
    """What was kept: item and answer, in the order in which they came."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[int], HeadOutput]] = []

    def add(self, items: Sequence[int], output: HeadOutput) -> None:
        self.calls.append((list(items), output))

    @property
    def items(self) -> list[int]:
        return [item for items, _ in self.calls for item in items]


def in_memory(**more: Any) -> Answers:
    return run(tiny(), some_prompts(30), wave_tokens=96, **more)


def layer_by_layer(**more: Any) -> Answers:
    return run(tiny(), some_prompts(30), **STREAMED, **more)


def spilled_to_disk(**more: Any) -> Answers:
    return run(tiny(), some_prompts(30), **STREAMED, disk_tokens=9_900, **more)


def by_own_forward(done: Callable[[int], None] = lambda _: None, **more: Any) -> Answers:
    return prefill_whole(tiny(), some_prompts(30), OPTIONS, "cpu", done, 64, **more)


PATHS = pytest.mark.parametrize("answered", [in_memory, layer_by_layer, spilled_to_disk, by_own_forward])


@PATHS
def test_every_answer_is_kept_once_as_it_is_returned(answered: Answered, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no time to lose, each answer is kept soon, at most once, and equals what is returned; nothing moves beyond rounding."""
    monkeypatch.setattr(engine, "WaveTime", lambda period, n_layers, *_: WaveTime(period, n_layers, 0.0, 0.0))
    kept, usual = Kept(), answered()
    answers = answered(keep=Keep(0.0, kept.add))
    assert len(kept.calls) > 1
    assert len(set(kept.items)) == len(kept.items) == 30
    for items, output in kept.calls:
        np.testing.assert_array_equal(output.logits, answers.logits[items])
        np.testing.assert_array_equal(output.logsumexp, answers.logsumexp[items])
        np.testing.assert_array_equal(output.top_token, answers.top_token[items])
    np.testing.assert_allclose(answers.logits, usual.logits, atol=2e-5)
    np.testing.assert_array_equal(answers.top_token, usual.top_token)


@PATHS
def test_a_long_time_keeps_nothing_and_cuts_nothing(answered: Answered) -> None:
    """A run shorter than the time that may be lost keeps no answer, and gives the very same ones."""
    kept = Kept()
    np.testing.assert_array_equal(answered(keep=Keep(600.0, kept.add)).logits, answered().logits)
    assert not kept.calls


@PATHS
def test_a_signal_keeps_what_is_answered(answered: Answered) -> None:
    """Where a signal stops a run, finished waves are kept at once, however little time has passed."""
    kept, seen = Kept(), [0]

    def done(n_items: int) -> None:
        seen[0] += n_items
        if seen[0] > 20:
            raise Interrupted("stopped", 15)

    with pytest.raises(Interrupted):
        answered(done=done, keep=Keep(600.0, kept.add))
    if answered in (layer_by_layer, spilled_to_disk):
        assert not kept.calls  # the only wave was not finished
    else:
        assert 0 < len(kept.items) < 30 and len(kept.calls) == 1


@pytest.mark.parametrize("workers", [1, 3])
def test_layer_by_layer_waves_are_cut_in_their_first_layer(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first layer has not begun in time goes through with the next wave: no batch goes through a layer twice."""
    seen: list[tuple[int, tuple[int, ...]]] = []
    real = engine._Prefill._run

    def slow(self: Any, layer: Any, number: int, batch: Any, shared: Any) -> Any:
        if batch.items:
            seen.append((number, tuple(batch.items)))
            time.sleep(0.002)
        return real(self, layer, number, batch, shared)

    monkeypatch.setattr(engine._Prefill, "_run", slow)
    monkeypatch.setattr(engine, "WaveTime", lambda *_: WaveTime(0.03, 3, 0.0, 0.0))
    kept, prompts = Kept(), some_prompts(60)
    answers = run(tiny(), prompts, keep=Keep(0.06, kept.add), workers=workers, **STREAMED)
    assert sorted(item for number, items in seen for item in items if number == 0) == list(range(60))
    assert len(seen) == len(set(seen))
    waves = sum(number == 0 and (place == 0 or seen[place - 1][0] == 2) for place, (number, _) in enumerate(seen))
    assert 1 < waves < 60
    np.testing.assert_allclose(answers.logits, run(tiny(), prompts, **STREAMED).logits, atol=2e-5)


def test_a_wave_that_takes_longer_than_its_first_layer_said_makes_the_next_ones_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only later layers are slow, as with experts, the first wave tells, and the next ones hold fewer tokens."""
    real, limits, limit = engine._Prefill._run, list[float](), Waves.limit_tokens

    def slow(self: Any, layer: Any, number: int, batch: Any, shared: Any) -> Any:
        time.sleep(0.005 * (number > 0))
        return real(self, layer, number, batch, shared)

    def limited(self: Waves, n_tokens: float) -> None:
        limits.append(n_tokens)
        limit(self, n_tokens)

    monkeypatch.setattr(engine._Prefill, "_run", slow)
    monkeypatch.setattr(engine, "WaveTime", lambda *_: WaveTime(0.02, 3, 0.0, 0.0))
    monkeypatch.setattr(Waves, "limit_tokens", limited)
    run(tiny(), some_prompts(60), keep=Keep(0.04, lambda *_: None), wave_tokens=120)
    assert limits and min(limits) < 120


def test_nothing_is_cut_where_nothing_is_kept() -> None:
    """Without keeping, a wave may take for ever."""
    assert WaveTime(math.inf, 32, 1.0, 1.0).in_a_layer == math.inf


@pytest.mark.parametrize("copied", [0.0, 0.1, 20.0])
@pytest.mark.parametrize("prefix", [0.0, 0.05, 3.0])
@pytest.mark.parametrize("period", [0.0, 5.0, 300.0])
def test_what_a_wave_does_anew_takes_at_most_five_percent_golden(period: float, prefix: float, copied: float) -> None:
    """Counted by hand: the first layer's weights, waited for, and the prefix of all layers, against the batches in all layers."""
    n_layers = 32
    time_of = WaveTime(period, n_layers, copied, prefix)
    waited = copied + (n_layers - 1) * max(0.0, copied - time_of.in_a_layer)
    assert waited + n_layers * prefix <= EXTRA * n_layers * time_of.in_a_layer + 1e-9
    if copied == prefix == 0:
        assert time_of.in_all == pytest.approx(period)
