"""Clusters of unequal, known sizes: how much unseen damage the gate allows for, and items that are independent although they repeat.

As a program, `python tests/studies/test_analyzer_unequal_clusters.py SAMPLES` prints the rows of analyzer/validity.md.
"""

import math
import sys

import numpy as np
import pytest
from analyzer_data import MemoryReader, make_run, skilled_logits
from scipy.optimize import minimize
from scipy.special import betaincinv

from analyzer.compare.compare import compare
from analyzer.gate.bounds import of_items
from analyzer.gate.ci_reports import needed, sentence
from analyzer.gate.gate import INCONCLUSIVE, TAIL, gate
from analyzer.gate.policy import Limit
from analyzer.protocols.ask import ask
from analyzer.runs.loading import select_runs
from analyzer.stats.clusters import clusters_of, unseen_size
from analyzer.stats.estimate import mean
from analyzer.studies.guarantee import guarantee
from analyzer.tables.cautions import dependent
from schemas.items import Item
from schemas.itemset import build_item_set

SIZES = {
    "few large": np.repeat([1, 50], [990, 10]),
    "falling": np.ceil(30 / np.arange(1, 601)).astype(int),
    "equal": np.full(200, 10),
}


def hidden(sizes: np.ndarray, probability: np.ndarray) -> float:
    return float(sizes @ probability)


@pytest.mark.parametrize("sizes", [[5], [3, 3, 3], [9, 4, 1], [20, 19, 2, 2, 1, 1], [7, 1, 1, 1, 1, 1, 1]])
@pytest.mark.parametrize("tail", [0.3, 0.025, 1e-6])
def test_unseen_size_is_the_most_that_clusters_can_hide(sizes: list[int], tail: float) -> None:
    """A numerical search over the clusters' probabilities of damage finds no more than equal clusters of the returned size can hide."""
    size, n = np.array(sizes, dtype=float), len(sizes)
    found = minimize(
        lambda x: -hidden(size, -np.expm1(-x)),
        np.full(n, -math.log(tail) / n),
        bounds=[(0, None)] * n,
        constraints={"type": "eq", "fun": lambda x: x.sum() + math.log(tail)},
        options={"ftol": 1e-13, "maxiter": 500},
    )
    assert unseen_size(size, tail) * n * (1 - tail ** (1 / n)) == pytest.approx(-found.fun, rel=1e-6)


def test_equal_clusters_hide_as_much_as_clopper_and_pearson_say() -> None:
    """Equal clusters keep their size to the last digit, so that a share of whole clusters has the exact binomial bound."""
    assert [unseen_size(np.full(n, 7), 0.025) for n in (1, 3, 200, 5_000)] == pytest.approx([7] * 4, abs=1e-11)
    damaged = np.repeat(np.arange(40) < 3, 5)
    amount = of_items(mean(damaged, clusters_of(np.repeat(np.arange(40), 5), 40), share=True), 0.0, 1.0)
    assert amount.high(TAIL) == pytest.approx(betaincinv(4, 37, 1 - TAIL), rel=1e-9)


def worst_damage(sizes: np.ndarray, budget: float) -> np.ndarray:
    """The clusters' probabilities of damage that hide most: no damage is seen with probability TAIL ** budget."""
    low, high = 1e-9, float(sizes.max())
    for _ in range(100):
        level = math.sqrt(low * high)
        low, high = (level, high) if np.log(sizes[sizes > level] / level).sum() > -budget * math.log(TAIL) else (low, level)
    return np.maximum(1 - level / sizes, 0.0)


def errors(sizes: np.ndarray, damage: np.ndarray, trials: int) -> tuple[float, float]:
    """Share of samples whose upper bound lies below the true share of damaged items, and of those whose lower bound lies above it."""
    rng, code = np.random.default_rng(3), np.repeat(np.arange(sizes.size), sizes)
    truth, low, high = hidden(sizes, damage) / code.size, 0, 0
    for _ in range(trials):
        seen = rng.random(sizes.size) < damage
        amount = of_items(mean(seen[code], clusters_of(code, sizes.size), share=True), 0.0, 1.0)
        high += amount.high(TAIL) < truth
        low += amount.low(TAIL) > truth
    return high / trials, low / trials


def settings(sizes: np.ndarray) -> dict[str, np.ndarray]:
    """Damage where it is hardest to see, at three sizes of it, and the same amount independent of the clusters' sizes."""
    worst = {f"hidden most, {budget:g}": worst_damage(sizes, budget) for budget in (1, 2.5, 10)}
    return worst | {"any size": np.full(sizes.size, hidden(sizes, worst["hidden most, 2.5"]) / sizes.sum())}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_bounds_hold_against_damage_that_hides_best(sizes: np.ndarray) -> None:
    """100 samples a setting: each bound errs in at most 2.5 % and noise, also where damage falls on the clusters that hide it best."""
    for name, damage in settings(sizes).items():
        assert max(errors(sizes, damage, 100)) <= TAIL + 3.1 * math.sqrt(TAIL / 100), name


@pytest.mark.slow
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_bounds_hold_against_damage_that_hides_best_in_many_samples(sizes: np.ndarray) -> None:
    """The same with 2,000 samples."""
    for name, damage in settings(sizes).items():
        assert max(errors(sizes, damage, 2_000)) <= TAIL + 3.1 * math.sqrt(TAIL / 2_000), name


def test_few_large_clusters_hide_less_than_if_all_were_as_large() -> None:
    """Ten clusters of 50 among 1,000: without damage seen, at most 10.4 % is damaged, where clusters of 50 alone would allow 12.4 %."""
    sizes = SIZES["few large"]
    amount = of_items(mean(np.zeros(sizes.sum()), clusters_of(np.repeat(np.arange(sizes.size), sizes), sizes.size), share=True), 0.0, 1.0)
    assert amount.high(TAIL) == pytest.approx(hidden(sizes, worst_damage(sizes, 1)) / sizes.sum(), rel=1e-6)
    if_all_large = 50 * sizes.size / sizes.sum() * (1 - TAIL ** (1 / sizes.size))
    assert amount.high(TAIL) < 0.104
    assert if_all_large > 0.12


def test_draws_with_replacement_are_independent_although_questions_repeat() -> None:
    """400 samples of 500 draws from 300 questions, some far more frequent: item by item, 95 % intervals hold the truth in 92 to 98 %.

    Whether a question is answered right never changes, so that equal questions agree in full; clusters of questions are then too careful.
    """
    rng = np.random.default_rng(4)
    frequency = 1 / np.arange(1, 301)
    frequency /= frequency.sum()
    right = rng.random(300) < 0.6
    truth, held, wider = float(frequency @ right), 0, 0.0
    for _ in range(400):
        drawn = rng.choice(300, 500, p=frequency)
        single, joined = mean(right[drawn], share=True).interval(), mean(right[drawn], clusters_of(drawn, 300), share=True).interval()
        held += single.low <= truth <= single.high
        wider += (joined.high - joined.low) / (single.high - single.low) / 400
    assert 0.92 <= held / 400 <= 0.98 and wider > 1.5


def test_cluster_item_counts_every_item_and_says_so() -> None:
    """`--cluster item` gives the intervals of independent items; the table still says that questions repeat, and guarantees accept it."""
    rng, choices = np.random.default_rng(0), dict(zip("ABCD", "wxyz", strict=True))
    each = [Item(id=f"{i:04}", question=f"q{i // 4}", choices=choices, answer="ABCD"[i // 4 % 4]) for i in range(80)]
    stored = build_item_set("t", each)
    logits = np.repeat(skilled_logits(rng, stored.answer[::4], 4), 4, axis=0)
    compressed = logits + rng.normal(size=logits.shape)
    runs = select_runs(MemoryReader([stored], [make_run(stored, logits), make_run(stored, compressed, method="rtn")]), {})
    apart, item = {str(one): str(one) for one in stored.item_id.tolist()}, ask(cluster="item")
    single, joined = compare(runs, item), compare(runs, ask())
    assert [row | {"cluster": "item"} for row in compare(runs, ask(cluster=apart))] == single
    width = [max(row["accuracy_high"] - row["accuracy_low"] for row in rows) for rows in (single, joined)]
    assert width[1] > 1.3 * width[0]
    (sentence,) = dependent(single)
    assert "80 items of t ask 20 different questions; every item counts as an independent draw (--cluster item)" in sentence
    reasons = ([row["unreliable"] or "" for row in guarantee(runs, question)] for question in (item, ask()))
    assert ["different questions" in " ".join(each) for each in reasons] == [False, True]


@pytest.mark.parametrize("n_questions", [200, 495])
def test_no_number_of_items_is_said_to_decide_where_most_repeat_a_question(n_questions: int) -> None:
    """More draws of few questions enlarge the clusters and add few: with 200 among 500 items there is no number, with 495 there is."""
    rng, choices = np.random.default_rng(1), dict(zip("ABCD", "wxyz", strict=True))
    asked = np.arange(500) % n_questions
    stored = build_item_set("t", [Item(id=f"{i:04}", question=f"q{q}", choices=choices, answer="ABCD"[q % 4]) for i, q in enumerate(asked)])
    of_question = np.arange(n_questions) % 4
    logits = skilled_logits(rng, of_question, 4)
    damaged = logits + 0.4 * rng.normal(size=logits.shape)
    runs = select_runs(MemoryReader([stored], [make_run(stored, logits[asked]), make_run(stored, damaged[asked], method="rtn")]), {})
    limits = [Limit("accuracy_loss", 0.05)]
    repeated, apart = ([one for one in gate(runs, how, limits) if one["limit"]] for how in (ask(), ask(cluster="item")))
    assert {one["result"] for one in (*repeated, *apart)} == {INCONCLUSIVE}
    assert apart[0]["items_needed"] and (repeated[0]["items_needed"] is None) == (n_questions == 200)
    assert ("questions repeat too often" in sentence(repeated[0])) == (n_questions == 200)
    assert ("`--cluster item`" in needed(repeated)) == (n_questions == 200)
    both = needed([*repeated, *apart])
    assert "so many decide in 80 %" in both and ("`--cluster item`" in both) == (n_questions == 200)


if __name__ == "__main__":
    for kind, cluster_sizes in SIZES.items():
        for name, probability in settings(cluster_sizes).items():
            below, above = errors(cluster_sizes, probability, int(sys.argv[1]))
            share = hidden(cluster_sizes, probability) / cluster_sizes.sum()
            print(f"| {kind} | {name} | {share:.3f} | {100 * below:.1f} | {100 * above:.1f} |", flush=True)
