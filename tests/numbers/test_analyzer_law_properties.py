"""The exact split law against brute force over every split."""

from fractions import Fraction
from itertools import combinations
from math import inf

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.conformal.coverage_law import coverage_law
from analyzer.conformal.ranks import Ranks, rank_scores, threshold_rank
from analyzer.conformal.split_law import rank_law, set_statistics
from analyzer.conformal.split_moments import all_moments, moments


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int, Fraction]:
    """Scores (item, option) with many ties, answers, calibration size, alpha; items may have different numbers of options."""
    n_items, n_options = draw(st.integers(2, 8)), draw(st.sampled_from([2, 3, 4, 5, 26]))
    values = st.integers(0, draw(st.integers(0, 6)))
    scores = np.array(draw(st.lists(st.lists(values, min_size=n_options, max_size=n_options), min_size=n_items, max_size=n_items)), float)
    answer = np.array([draw(st.integers(0, n_options - 1)) for _ in range(n_items)])
    for item in range(n_items):
        scores[item, max(2, answer[item] + 1, draw(st.integers(2, n_options))) :] = np.nan
    return scores, answer, draw(st.integers(1, n_items - 1)), Fraction(draw(st.integers(1, 19)), 20)


def naive_splits(scores: np.ndarray, answer: np.ndarray, n: int, alpha: Fraction) -> dict[str, list[float]]:
    items = range(len(answer))
    widest = range(scores.shape[1] + 1)
    names = ["coverage", "set_size", "empty_rate", "singleton_rate", *(f"size_{size}_rate" for size in widest)]
    found: dict[str, list[float]] = {name: [] for name in names}
    k = threshold_rank(n, alpha)
    for calibration in combinations(items, n):
        ordered = sorted(scores[i, answer[i]] for i in calibration)
        threshold = inf if k > n else ordered[k - 1]
        sets = {i: {j for j, s in enumerate(scores[i]) if s <= threshold} for i in items if i not in calibration}
        found["coverage"].append(np.mean([answer[i] in s for i, s in sets.items()]))
        found["set_size"].append(np.mean([len(s) for s in sets.values()]))
        found["empty_rate"].append(np.mean([not s for s in sets.values()]))
        found["singleton_rate"].append(np.mean([len(s) == 1 for s in sets.values()]))
        for size in widest:
            found[f"size_{size}_rate"].append(np.mean([len(s) == size for s in sets.values()]))
    return found


def ranked(scores: np.ndarray, answer: np.ndarray) -> Ranks:
    return rank_scores(scores, answer, np.where(np.isnan(scores), np.nan, 0.5))


@given(problems())
@settings(max_examples=150, deadline=None)
def test_exact_law_equals_brute_force_over_all_splits(problem: tuple[np.ndarray, np.ndarray, int, Fraction]) -> None:
    """Means, variances and the law of coverage are those over all C(N, n) splits, ties and ragged options included."""
    scores, answer, n, alpha = problem
    ranks = ranked(scores, answer)
    law = rank_law(len(answer), n, threshold_rank(n, alpha))
    expected = naive_splits(scores, answer, n, alpha)
    known = set_statistics(ranks, sizes=True)
    found = moments(law, known)
    for name, mean, sd in zip(known.names, found.mean, found.sd, strict=True):
        assert abs(mean - np.mean(expected[name])) < 1e-12, name
        assert abs(sd**2 - np.var(expected[name])) < 1e-12, name
    coverage = coverage_law(law, known.table)
    values, counts = np.unique(np.round(expected["coverage"], 12), return_counts=True)
    np.testing.assert_allclose(coverage.value, values, rtol=0, atol=1e-12)
    np.testing.assert_allclose(coverage.probability, counts / counts.sum(), rtol=0, atol=1e-12)


@given(problems())
@settings(max_examples=50, deadline=None)
def test_laws_at_many_alphas_together_are_those_one_by_one(problem: tuple[np.ndarray, np.ndarray, int, Fraction]) -> None:
    """Mean and sd of every statistic are the same at every alpha but for rounding, alphas too small for the split included."""
    scores, answer, n, _ = problem
    known = set_statistics(ranked(scores, answer), sizes=True)
    ks = tuple(threshold_rank(n, Fraction(number, 20)) for number in range(1, 20))
    laws = [rank_law(len(answer), n, k) for k in ks]
    together, apart = all_moments(laws, known), [moments(law, known) for law in laws]
    np.testing.assert_allclose(together.mean, [one.mean for one in apart], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(together.sd, [one.sd for one in apart], rtol=1e-12, atol=1e-15)


def test_a_grid_of_alphas_has_the_moments_that_its_laws_have_one_by_one() -> None:
    """Also where 40 laws share a product, at 3,000 items with ties, and where nearly every set is full, so that the sd is next to 0."""
    rng = np.random.default_rng(0)
    scores, answer = np.round(rng.random((3_000, 4)), 2), rng.integers(0, 4, 3_000)
    known = set_statistics(ranked(scores, answer), sizes=True)
    laws = [rank_law(3_000, 1_500, threshold_rank(1_500, Fraction(number, 1_000))) for number in range(1, 1_000)]
    together, apart = all_moments(laws, known), [moments(law, known) for law in laws]
    np.testing.assert_allclose(together.mean, [one.mean for one in apart], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(together.sd, [one.sd for one in apart], rtol=1e-12, atol=1e-14)


@given(problems())
@settings(max_examples=50, deadline=None)
def test_only_the_order_of_scores_counts(problem: tuple[np.ndarray, np.ndarray, int, Fraction]) -> None:
    """Any rising transform of the scores, exact in floating point here, leaves every rank and so every figure as it was."""
    scores, answer, _, _ = problem
    before, after = ranked(scores, answer), ranked(2.0**scores - 5, answer)
    for name in ("item_rank", "option", "answer"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))


@given(problems())
@settings(max_examples=50, deadline=None)
def test_ties_at_the_threshold_equal_brute_force_over_all_splits(problem: tuple[np.ndarray, np.ndarray, int, Fraction]) -> None:
    """The mean number of other answer scores that equal the threshold is that over all C(N, n) splits; none equals +inf."""
    scores, answer, n, alpha = problem
    of_answer = scores[np.arange(len(answer)), answer]
    k = threshold_rank(n, alpha)
    law, ranks = rank_law(len(answer), n, k), ranked(scores, answer)
    thresholds = [inf if k > n else sorted(of_answer[list(chosen)])[k - 1] for chosen in combinations(range(len(answer)), n)]
    expected = np.mean([max(int((of_answer == threshold).sum()) - 1, 0) for threshold in thresholds])
    assert abs(law.weights @ ranks.ties[law.first : law.first + law.weights.size] - expected) < 1e-12


def test_rank_law_adds_up_far_beyond_what_factorials_reach() -> None:
    """The law of the threshold's rank is right at a million items: its mean and variance are those known in closed form."""
    n_items, n, k = 1_000_000, 300_000, 270_001
    law = rank_law(n_items, n, k)
    mean = law.weights @ law.ranks
    variance = law.weights @ (law.ranks - mean) ** 2
    expected = k * (n + 1 - k) * (n_items + 1) * (n_items - n) / ((n + 1) ** 2 * (n + 2))
    assert abs(mean + 1 - k * (n_items + 1) / (n + 1)) < 1e-6
    assert abs(variance / expected - 1) < 1e-9


def test_a_calibration_set_too_small_for_alpha_gives_full_sets() -> None:
    """k above n is +inf, never a clamp: every set is full and coverage is 1."""
    scores = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]])
    ranks = ranked(scores, np.array([0, 1, 1, 0]))
    law = rank_law(4, 2, threshold_rank(2, Fraction(1, 10)))
    known = set_statistics(ranks)
    found = moments(law, known)
    assert (found.mean[known.names.index("coverage")], found.sd[known.names.index("coverage")]) == (1.0, 0.0)
    assert (found.mean[known.names.index("set_size")], found.sd[known.names.index("set_size")]) == (2.0, 0.0)
