"""Guarantees that a user can state: against enumeration, published numbers and simulation with a known truth."""

from fractions import Fraction

import numpy as np
import pytest
from scipy.special import bdtr
from scipy.stats import betabinom, binom, hypergeom

from analyzer.conformal.guarantees import (
    answered_alone,
    beta_binomial,
    least_abstention,
    least_calibration,
    next_coverage,
    next_right,
    sure_rank,
)

TENTH = Fraction(1, 10)


def test_the_fewest_items_for_a_sure_threshold_golden() -> None:
    """Wilks 1941: 59 items bound the 95 % quantile with 95 % confidence by their largest, 29 the 90 % quantile; one fewer does not."""
    for alpha, n in ((Fraction(1, 20), 59), (TENTH, 29)):
        assert least_calibration(alpha, 0.05) == n
        assert (sure_rank(n, alpha, 0.05), sure_rank(n - 1, alpha, 0.05)) == (n, n)
        assert sure_rank(n - 1, alpha, 0.05) == n  # n - 1 items: the rank after the last, which is +inf


@pytest.mark.parametrize("n", [40, 200, 1_000])
@pytest.mark.parametrize("delta", [0.05, 0.2])
def test_a_sure_threshold_covers_for_all_but_a_share_of_calibration_sets(n: int, delta: float) -> None:
    """Of 200,000 calibration sets at most a share delta covers less than 90 %; with one rank less, more would."""
    rng = np.random.default_rng(n)
    k = sure_rank(n, TENTH, delta)
    assert np.mean(rng.beta(k, n + 1 - k, 200_000) < 0.9) <= delta + 0.003
    assert np.mean(rng.beta(k - 1, n + 2 - k, 200_000) < 0.9) > delta - 0.003
    assert k > np.ceil((n + 1) * 0.9)


@pytest.mark.parametrize(("n_next", "a", "b"), [(1, 1, 1), (10, 3, 7), (500, 90, 11), (40, 0.5, 0.5)])
def test_the_law_of_the_next_items_is_the_beta_binomial_golden(n_next: int, a: float, b: float) -> None:
    """Against scipy's own, count by count; a parameter of 0 is a certainty."""
    np.testing.assert_allclose(beta_binomial(n_next, a, b), betabinom.pmf(np.arange(n_next + 1), n_next, a, b), rtol=1e-9, atol=1e-300)
    assert beta_binomial(n_next, 3, 0)[-1] == beta_binomial(n_next, 0, 3)[0] == 1.0


def test_the_next_coverage_holds_in_simulation() -> None:
    """Scores of 100 calibration and 50 new items, 40,000 times: the count of covered ones is between the limits in at least 95 %."""
    rng = np.random.default_rng(1)
    k = 91
    low, high = next_coverage(100, k, 50, 0.95)
    thresholds = rng.beta(k, 101 - k, 40_000)
    covered = rng.binomial(50, thresholds)
    share = np.mean((low <= covered) & (covered <= high))
    assert 0.95 <= share < 0.99
    assert next_coverage(100, 101, 50, 0.95) == (50, 50)


@pytest.mark.parametrize(("n_right", "n_items", "n_next"), [(0, 10, 20), (7, 10, 5), (45, 60, 200), (10, 10, 10)])
def test_the_next_accuracy_has_thatchers_limits_golden(n_right: int, n_items: int, n_next: int) -> None:
    """The limits are those of the two-sample hypergeometric test: each count outside is rejected at 2.5 %, each at the limit is not."""
    low, high = next_right(n_right, n_items, n_next, 0.95)
    for count in range(n_next + 1):
        together = hypergeom(n_items + n_next, n_right + count, n_items)
        too_low, too_high = together.sf(n_right - 1) <= 0.025, together.cdf(n_right) <= 0.025
        assert (low <= count <= high) == (not too_low and not too_high), count


@pytest.mark.parametrize("accuracy", [0.02, 0.3, 0.7, 0.99])
def test_the_next_accuracy_holds_for_any_truth(accuracy: float) -> None:
    """By enumeration over what 60 items may show and what 40 more will: at least 95 % lies within the limits."""
    held = 0.0
    for n_right in range(61):
        low, high = next_right(n_right, 60, 40, 0.95)
        held += binom.pmf(n_right, 60, accuracy) * (bdtr(high, 40, accuracy) - (bdtr(low - 1, 40, accuracy) if low else 0.0))
    assert held >= 0.95 - 1e-9


def test_the_least_abstention_by_hand_golden() -> None:
    """20 wrong of 100 at a risk of 4 %: of 84 answered 80 right ones are 95.2 %, and 83.3 are the most; 100 right ones need none."""
    correct = np.arange(100) >= 20
    value, low, high = least_abstention(correct, 0.04, 0.025)
    assert value == pytest.approx(1 - 0.8 / 0.96)
    assert low < value < high
    assert least_abstention(np.ones(100, dtype=bool), 0.05, 0.025)[:2] == (0.0, 0.0)


def sample(rng: np.random.Generator, n_items: int, sharp: float) -> tuple[np.ndarray, np.ndarray]:
    """Confidence uniform in [0.25, 1]; P(right) is its power `sharp`, so the risk at a threshold is known by integration."""
    confidence = rng.uniform(0.25, 1.0, n_items)
    return confidence, rng.random(n_items) < confidence**sharp


def true_risk(threshold: float, sharp: float) -> float:
    if threshold > 1:
        return 0.0
    return float(1 - np.mean(np.linspace(max(threshold, 0.25), 1.0, 2_001) ** sharp))


@pytest.mark.parametrize(("n_items", "sharp"), [(200, 1.0), (1_000, 1.0), (1_000, 0.3), (1_000, 4.0)])
def test_the_certified_risk_is_exceeded_in_at_most_a_share_delta(n_items: int, sharp: float) -> None:
    """1,500 samples from a known truth: the risk of what is answered alone exceeds 10 % in at most 10 % of them (and the error of that)."""
    rng = np.random.default_rng(0)
    found = [answered_alone(*sample(rng, n_items, sharp), 0.1, 0.1) for _ in range(1_500)]
    false = np.mean([true_risk(one.threshold, sharp) > 0.1 for one in found])
    assert false <= 0.1 + 2 * np.sqrt(0.09 / 1_500)


def test_a_certified_share_is_near_the_largest_one() -> None:
    """Of 5,000 items at least half the largest share with a true risk of 10 % is certified, in nine of ten samples."""
    rng = np.random.default_rng(2)
    largest = (1 - 0.8) / 0.75  # mean of the confidence above t is (1 + t) / 2 = 0.9
    shares = [answered_alone(*sample(rng, 5_000, 1.0), 0.1, 0.05).share for _ in range(60)]
    assert np.mean(np.array(shares) > 0.5 * largest) > 0.9


def test_nothing_is_certified_from_few_or_bad_items() -> None:
    """Twenty right answers prove no risk of 10 % at 5 %, 29 do; a model that is always wrong answers nothing; no items, no answer."""
    sure = np.full(29, 0.99)
    assert answered_alone(sure[:20], np.ones(20, dtype=bool), 0.1, 0.05).share == 0.0
    assert answered_alone(sure, np.ones(29, dtype=bool), 0.1, 0.05).share == 1.0
    assert answered_alone(sure, np.zeros(29, dtype=bool), 0.1, 0.05).threshold == np.inf
    assert answered_alone(np.empty(0), np.empty(0, dtype=bool), 0.1, 0.05).share == 0.0
