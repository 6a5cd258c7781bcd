"""What sets cost: against counting over all splits, with hand-made prices, and what the prices file may say."""

from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analyzer_data import MemoryReader, item_set, make_run, skilled_logits, toy

from analyzer.conformal.ranks import threshold_rank
from analyzer.measure.question import Question
from analyzer.predictor import document as predictor
from analyzer.runs.loading import select_runs
from analyzer.scorers.lac import lac
from analyzer.studies.cost import WAYS, Prices, cost, operations, read_prices
from schemas.errors import UsageError

PRICES = Prices(answer=1.0, ask_again=10.0, review=100.0, abstain=50.0, wrong=1000.0, ask_again_up_to=2)


def test_ways_and_cost_equal_counting_over_all_splits() -> None:
    """Every question of every split is sent its way and priced one by one; the mean is the exact law's."""
    view, alpha = toy(10, seed=4), Fraction(3, 10)
    scores, k = lac(view.probs), threshold_rank(5, alpha)
    counts = {name: [] for name in (*WAYS, "cost")}
    for chosen in combinations(range(10), 5):
        threshold = sorted(scores[i, view.answer[i]] for i in chosen)[k - 1]
        sets = {i: np.flatnonzero(scores[i] <= threshold) for i in range(10) if i not in chosen}
        ways = {
            "alone": [len(s) == 1 for s in sets.values()],
            "alone_wrong": [len(s) == 1 and s[0] != view.answer[i] for i, s in sets.items()],
            "asked_again": [len(s) == 2 for s in sets.values()],
            "review": [len(s) > 2 for s in sets.values()],
            "abstained": [len(s) == 0 for s in sets.values()],
        }
        means = {name: np.mean(values) for name, values in ways.items()}
        each = means["alone"] + 1000 * means["alone_wrong"] + 10 * means["asked_again"] + 100 * means["review"] + 50 * means["abstained"]
        for name, value in (means | {"cost": 1000 * each}).items():
            counts[name].append(value)
    found = operations(view, "lac", alpha, Question(), PRICES)
    for name, values in counts.items():
        assert found[name].value == pytest.approx(np.mean(values), rel=1e-12, abs=1e-12), name


def test_cost_is_laid_against_the_saving_in_hardware() -> None:
    """The break-even price of review is the one at which nothing is left; a saving larger than the change pays."""
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 4, 2_000)
    items = item_set(answers)
    logits = skilled_logits(rng, answers, 4)
    runs = [make_run(items, logits), make_run(items, logits + rng.normal(size=logits.shape), method="rtn", level="w4a16")]
    selected = select_runs(MemoryReader([items], runs), {})
    prices = Prices(review=0.01, hardware={"dense": 3.0, "rtn/w4a16": 1.0})
    record = cost(selected, Question(scorers=("lac",)), prices)[1]
    assert record["hardware_saving"] == 2.0
    assert record["total_change"] == pytest.approx(record["cost_change"] - 2.0)
    even = Prices(review=record["break_even_review_price"], hardware=prices.hardware)
    assert cost(selected, Question(scorers=("lac",)), even)[1]["total_change"] == pytest.approx(0, abs=1e-9)
    assert record["pays"] == ("saves" if record["total_change_high"] <= 0 else "costs more")
    free = cost(selected, Question(scorers=("lac",)), Prices(review=0.01))
    assert [row["pays"] for row in free] == [None, None] and free[0]["cost_change"] is None


def test_the_break_even_price_has_an_interval_or_is_not_given() -> None:
    """At either end of it the interval of the change of cost just reaches 0; without it where reviews may not have grown at all."""
    rng = np.random.default_rng(1)
    answers = rng.integers(0, 4, 2_000)
    items, logits = item_set(answers), skilled_logits(rng, answers, 4)
    runs = [make_run(items, logits)]
    runs += [
        make_run(items, logits + noise * rng.normal(size=logits.shape), method="rtn", level=level)
        for noise, level in ((1.0, "w3a16"), (0.01, "w8a16"))
    ]
    selected, hardware = select_runs(MemoryReader([items], runs), {}), {"dense": 30.0, "rtn": 1.0}

    def at(review: float) -> list[dict[str, Any]]:
        return cost(selected, Question(scorers=("lac",)), Prices(review=review, hardware=hardware))

    same, grown = at(0.2)[1:]
    low, even, high = (grown[f"break_even_review_price{end}"] for end in ("_low", "", "_high"))
    assert 0 < low < even < high
    assert at(low)[2]["total_change_high"] == pytest.approx(0, abs=0.01) and at(high)[2]["total_change_low"] == pytest.approx(0, abs=0.01)
    assert same["level"] == "w8a16" and [same[f"break_even_review_price{end}"] for end in ("_low", "", "_high")] == [None] * 3


def test_prices_are_read_and_checked(tmp_path: Path) -> None:
    """A method's price serves all its levels, a level's own price goes first."""
    path = tmp_path / "prices.toml"
    path.write_text('[prices]\nreview = 1\n[rules]\nask_again_up_to = 3\n[hardware]\ndense = 2.0\nrtn = 1.0\n"rtn/w8a16" = 1.5\n')
    prices = read_prices(path)
    assert (prices.review, prices.ask_again_up_to) == (1.0, 3)
    assert (prices.hardware_of("rtn", "w8a16"), prices.hardware_of("rtn", "w4a16")) == (1.5, 1.0)


def test_a_predictor_file_records_every_price() -> None:
    """The prices that a file may state are those that a predictor records, and the rule beside them."""
    assert {*Prices.model_fields} == {*predictor.PRICES, "ask_again_up_to", "hardware"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "nothing has a price"),
        ("[prices]\nreveiw = 1\n", "unknown key 'prices.reveiw'; did you mean review\\? known: answer, ask_again, review, abstain, wrong"),
        ("[prices]\nreview = -1\n", "-1 is not a number of 0 or more"),
        ("[prices]\nreview = inf\n", "inf is not a finite number"),
        ("[price]\nreview = 1\n", "unknown key 'price'; did you mean prices\\? known: prices, rules, hardware"),
        ("[prices]\nreview = 1\n[hardware]\nrtn = 1\n", "no 'dense'"),
        ("[prices]\nreview = 1\n[rules]\nask_again_up_to = 0\n", "'rules.ask_again_up_to' is 0; it should be greater"),
        ("[prices", "cannot read prices"),
        ("[prices]\nreview = true\nwrong = -2\n[hardware]\nrtn = 1\n", "true is not.*-2 is not.*no 'dense'"),
    ],
)
def test_prices_that_cannot_be_meant_are_refused(tmp_path: Path, text: str, words: str) -> None:
    """Each mistake is quoted, with what is known."""
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        read_prices(path)
