"""`analyze guarantee` by simulation with a known truth: what it promises holds as often as it says."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from analyzer_data import MemoryReader, equal_items, make_run, skilled_logits

from analyzer.measure.question import Question
from analyzer.runs.loading import select_runs
from analyzer.studies.guarantee import guarantee
from schemas.errors import UsageError
from schemas.items import Item
from schemas.itemset import build_item_set

ASKED = Question(scorers=("lac",), alphas=(Fraction(1, 10),), calibration_fraction=Fraction(1, 2))


def records(rng: np.random.Generator, n_items: int, question: Question = ASKED, **asked: float) -> list[dict[str, object]]:
    items = equal_items(n_items)
    run = make_run(items, skilled_logits(rng, items.answer.astype(int), 4))
    return guarantee(select_runs(MemoryReader([items], [run]), {}), question, **asked)  # type: ignore[arg-type]


@pytest.mark.simulation
def test_what_is_promised_holds_as_often_as_stated() -> None:
    """150 samples of 400 items: the right ones of 100 next items lie between the ends in 95 % (two errors less).

    The risk of answers given alone, as 100,000 other items show it, exceeds 20 % in at most 5 % (two errors more).
    """
    rng = np.random.default_rng(0)
    many = equal_items(100_000)
    logits = skilled_logits(rng, many.answer.astype(int), 4).astype(float)
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    wrong, top = probs.argmax(axis=1) != many.answer, probs.max(axis=1)
    right, risky = [], []
    for _ in range(150):
        (found,) = records(rng, 400, n_next=100, risk=0.2)
        right.append(found["next_right_low"] <= 100 - wrong[rng.integers(0, wrong.size, 100)].sum() <= found["next_right_high"])
        answered = top >= (found["answered_from"] or 2.0)
        risky.append(answered.any() and wrong[answered].mean() > 0.2)
    assert np.mean(right) >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / 150)
    assert np.mean(risky) <= 0.05 + 2 * np.sqrt(0.95 * 0.05 / 150)


def test_a_guarantee_with_probability_costs_larger_sets_and_names_what_it_needs() -> None:
    """Sets that cover for 95 % of calibration sets are larger than those that cover on average; 20 items cannot do it, 29 can."""
    (found,) = records(np.random.default_rng(1), 400)
    assert found["sure_set_size"] > found["set_size"] and found["least_coverage"] < 0.9 and found["note"] is None
    (few,) = records(np.random.default_rng(1), 40)
    assert (
        few["sure_set_size"] == pytest.approx(4.0) and few["note"] == "20 calibration items cannot cover 0.9 with probability 0.95; 29 can"
    )


@pytest.mark.parametrize(("asked", "said"), [({"delta": 0.0}, "delta"), ({"risk": 1.0}, "risk"), ({"n_next": 0}, "next questions")])
def test_what_cannot_be_promised_is_refused(asked: dict[str, float], said: str) -> None:
    """Probabilities outside (0, 1), no next question and drawn splits are one sentence each."""
    with pytest.raises(UsageError, match=said):
        records(np.random.default_rng(2), 40, **asked)
    with pytest.raises(UsageError, match="mondrian"):
        records(np.random.default_rng(2), 40, replace(ASKED, mondrian="label"))


def test_repeated_questions_are_no_independent_items() -> None:
    """The exact laws are those of independent items, so a run over 200 questions asked twice is flagged."""
    rng = np.random.default_rng(0)
    asked = [Item(id=str(n), question=f"q{n // 2}", choices={"A": f"a{n}", "B": f"b{n}"}, answer="A") for n in range(400)]
    items = build_item_set("quiz", asked)
    run = make_run(items, skilled_logits(rng, items.answer.astype(int), 2))
    (found,) = guarantee(select_runs(MemoryReader([items], [run]), {}), ASKED)
    assert "400 items ask 200 different questions" in found["unreliable"]
