"""Tests by sign flips and by swapping runs, and sums over clusters: against enumeration and simulation with a known truth."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from analyzer.conformal.influence import split_influence
from analyzer.conformal.ranks import rank_scores, threshold_rank
from analyzer.conformal.split_law import rank_law, set_statistics
from analyzer.conformal.split_moments import moments
from analyzer.conformal.swap_test import swap_p
from analyzer.scorers.lac import lac
from analyzer.stats.clusters import cluster_influence, design_effect, effective_items, kish_items
from analyzer.stats.estimate import Estimate, mean
from analyzer.stats.probs import softmax
from analyzer.stats.significance import mcnemar, paired_p, sign_flip_p


def test_sign_flips_equal_enumeration_and_mcnemar_golden() -> None:
    """Few changes: all sign patterns; changes of one size are McNemar's test; items without a change do not count."""
    rng = np.random.default_rng(0)
    changes = np.array([0.5, -0.2, 1.3, 0.9, 0.0, 0.4])
    sums = [abs(np.dot(signs, changes)) for signs in product([-1, 1], repeat=6)]
    assert sign_flip_p(changes, rng) == pytest.approx(np.mean(np.array(sums) >= abs(changes.sum()) - 1e-12))
    assert sign_flip_p(np.array([1.0] * 9 + [-1.0] * 2 + [0.0] * 500), rng) == pytest.approx(mcnemar(9, 2))
    assert sign_flip_p(np.zeros(5), rng) == sign_flip_p(np.empty(0), rng) == 1.0


def test_drawn_sign_flips_are_near_mcnemar_and_repeat() -> None:
    """Many changes of one size: the drawn p-value is McNemar's within its error, and the same for the same generator."""
    changes = np.array([1.0] * 40 + [-1.0] * 22)
    found = [sign_flip_p(changes, np.random.default_rng(1)) for _ in range(2)]
    assert found[0] == found[1] == pytest.approx(mcnemar(40, 22), rel=0.4)
    assert sign_flip_p(np.full(400, 0.1), np.random.default_rng(1)) == pytest.approx(1 / 20_000)


def scores(rng: np.random.Generator, n_items: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two runs that differ by as much noise each, so that neither has the larger sets; and the answers."""
    answer = rng.integers(0, 4, n_items)
    logits = rng.normal(size=(n_items, 4))
    logits[np.arange(n_items), answer] += rng.gamma(2.0, 0.8, n_items)
    four = np.full(n_items, 4)
    one, other = (lac(softmax(logits + noise * rng.normal(size=logits.shape), four)) for _ in range(2))
    return one, other, answer


@pytest.mark.simulation
def test_swapping_finds_a_change_and_no_change_between_equal_runs() -> None:
    """A run whose answer is lost in a tenth of the items is told from its dense run; a run and itself are not."""
    rng = np.random.default_rng(2)
    one, other, answer = scores(rng, 400, 0.2)
    law = rank_law(400, 200, threshold_rank(200, Fraction(1, 10)))
    worse = np.where(rng.random(400)[:, None] < 0.1, rng.permuted(other, axis=1), other)
    assert swap_p((one, one), answer, law, rng) == 1.0
    assert swap_p((one, worse), answer, law, rng) < 0.001
    one[:, 3] = other[:, 3] = np.nan
    assert 0 < swap_p((one, other), np.minimum(answer, 2), law, rng) <= 1


def normal_p(one: np.ndarray, other: np.ndarray, answer: np.ndarray, alpha: Fraction) -> float:
    law = rank_law(answer.size, answer.size // 2, threshold_rank(answer.size // 2, alpha))
    sizes = []
    for run in (one, other):
        ranks = rank_scores(run, answer, 1 - run)
        known = set_statistics(ranks)
        place = known.names.index("set_size")
        sizes.append(Estimate(float(moments(law, known).mean[place]), split_influence(law, ranks.item_rank, known)[place]))
    return paired_p(Estimate(sizes[1].value - sizes[0].value, sizes[1].influence - sizes[0].influence, unseen=1 / answer.size))


@pytest.mark.slow
def test_swapping_errs_as_often_as_stated_where_the_normal_test_does_not() -> None:
    """LAC, alpha 0.01, 200 items, no true change: 5 % of 400 p-values are below 0.05 (two errors more), of the normal test over 10 %."""
    rng, alpha = np.random.default_rng(3), Fraction(1, 100)
    law = rank_law(200, 100, threshold_rank(100, alpha))
    runs = [scores(rng, 200, 0.3) for _ in range(400)]
    swapped = np.array([swap_p(one[:2], one[2], law, rng) for one in runs])
    assert np.mean(swapped <= 0.05) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)
    assert np.mean([normal_p(*one, alpha) <= 0.05 for one in runs]) > 0.1


def test_clusters_of_one_are_items() -> None:
    """Where every item is its own cluster nothing changes, whatever the clusters are called; equal items in pairs have effect 2."""
    influence = np.random.default_rng(4).normal(size=500)
    influence -= influence.mean()
    np.testing.assert_allclose(cluster_influence(influence, np.arange(500)), influence)
    assert design_effect(influence, np.random.default_rng(5).permutation(500)) == pytest.approx(1.0)
    pairs = np.repeat(influence, 2)
    assert design_effect(pairs, np.arange(1_000) // 2) == pytest.approx(2.0, rel=0.01)
    assert np.isnan(design_effect(np.zeros(4), np.arange(4)))


def test_intervals_over_clusters_hold_where_those_over_items_do_not() -> None:
    """Ten questions a passage, correlation 0.5 within it, 100 passages: 95 % intervals hold 93 to 97 %, over items below 70 %; the design
    effect is 1 + 9 * 0.5."""
    rng = np.random.default_rng(6)
    cluster, held, naive, effects = np.arange(1_000) // 10, [], [], []
    for _ in range(1_000):
        ability = rng.random(100) < 0.5  # P(right) is 0.85 or 0.15: mean 0.5, correlation 0.49
        right = rng.random(1_000) < np.where(ability, 0.85, 0.15)[cluster]
        items = mean(right)
        low, high = Estimate(items.value, cluster_influence(items.influence, cluster)).interval()
        held.append(low <= 0.5 <= high)
        naive.append(items.interval().low <= 0.5 <= items.interval().high)
        effects.append(design_effect(items.influence, cluster))
    assert 0.93 <= np.mean(held) <= 0.97 and np.mean(naive) < 0.7, (np.mean(held), np.mean(naive))
    assert np.mean(effects) == pytest.approx(1 + 9 * 0.49, rel=0.03)


def test_effective_items_by_hand_golden() -> None:
    """Equal contributions of N items rest on N, one item on one, none on none; weights 1 and 3 are worth 1.6 items."""
    assert effective_items(np.array([1.0, -1.0, 1.0, -1.0])) == 4
    assert effective_items(np.array([0.0, 5.0, 0.0])) == 1
    assert effective_items(np.zeros(3)) == kish_items(np.zeros(3)) == 0
    assert kish_items(np.array([1.0, 3.0])) == pytest.approx(1.6)
