"""Bounds on a mean: those of Clopper and Pearson for shares, and false at most 2.5 % of the time on either side for anything else."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import beta

from analyzer.stats.mean_bounds import mean_interval, mean_upper_bound

TAIL = 0.025
Draw = Callable[[np.random.Generator, int], np.ndarray]


@pytest.mark.parametrize("n_items", [1, 3, 10, 100, 2_000])
def test_bounds_of_a_share_are_clopper_and_pearsons_golden(n_items: int) -> None:
    """For 0 or 1 the bound is the quantile of the beta law."""
    for right in {0, 1, 2, n_items // 2, n_items - 1, n_items} & set(range(n_items + 1)):
        values = (np.arange(n_items) < right).astype(float)
        for tail in (TAIL, 0.005, TAIL / 57):
            bound = mean_upper_bound(values, 1.0, tail)
            expected = beta.isf(tail, right + 1, n_items - right) if right < n_items else 1.0
            assert bound == pytest.approx(expected, rel=1e-9), (n_items, right, tail)


def test_the_saddlepoint_formula_equals_the_dirichlet_law() -> None:
    """Three distinct values of 3 to 40 items: of a million Dirichlet draws the stated share exceeds the bound (within 5 % of it)."""
    rng = np.random.default_rng(2)
    for counts in ([1, 1, 1], [2, 0, 1], [10, 3, 2], [30, 2, 8]):
        values = np.repeat([0.0, 0.3, 0.8], counts)
        weights = rng.dirichlet([*counts, 1] if counts[1] else [counts[0], 1e-9, counts[2], 1], 1_000_000)
        for tail in (0.25, TAIL):
            bound = mean_upper_bound(values, 1.0, tail)
            assert np.mean(weights @ [0.0, 0.3, 0.8, 1.0] > bound) == pytest.approx(tail, rel=0.05), (counts, tail)


def test_nothing_seen_is_no_proof_of_nothing_golden() -> None:
    """Of 100 items none lost: the loss may be 3.6 %, which is 1 - 0.025 ** (1 / 100); of six of six right, accuracy may be 54 %."""
    assert mean_upper_bound(np.zeros(100), 1.0, TAIL) == pytest.approx(1 - TAIL**0.01, rel=1e-9)
    assert mean_interval(np.ones(6), 0.0, 1.0, TAIL) == pytest.approx((TAIL ** (1 / 6), 1.0))
    assert mean_interval(np.empty(0), -1.0, 1.0, TAIL) == (-1.0, 1.0)


def test_many_well_behaved_values_have_students_bound() -> None:
    """20,000 normal values within four: the interval is that of the normal law, widened by less than 2 %."""
    values = np.random.default_rng(0).normal(size=20_000).clip(-4, 4)
    low, high = mean_interval(values, -4.0, 4.0, TAIL)
    half = 1.96 * values.std() / np.sqrt(values.size)
    assert 1.0 < (high - low) / (2 * half) < 1.02


def test_bounds_follow_the_values_properties() -> None:
    """Shifting and stretching values shifts and stretches the interval, and a value outside the stated range is refused."""
    values = np.random.default_rng(1).exponential(size=60)
    low, high = mean_interval(values, 0.0, 10.0, TAIL)
    assert mean_interval(3 * values - 5, -5.0, 25.0, TAIL) == pytest.approx((3 * low - 5, 3 * high - 5))
    with pytest.raises(ValueError, match="values reach"):
        mean_upper_bound(np.array([0.2, 1.5]), 1.0, TAIL)
    with pytest.raises(ValueError, match="expected finite"):
        mean_upper_bound(np.array([0.2, np.nan]), 1.0, TAIL)


def ruined(rng: np.random.Generator, n_items: int) -> np.ndarray:
    return 0.01 * rng.gamma(1, 1, n_items) + (rng.random(n_items) < 0.01) * rng.uniform(1, 5, n_items)


def heavy(rng: np.random.Generator, n_items: int) -> np.ndarray:
    return np.minimum(rng.lognormal(-4, 1.6, n_items), 10.0)


def changes(to_wrong: float, to_right: float) -> Draw:
    def draw(rng: np.random.Generator, n_items: int) -> np.ndarray:
        return rng.choice([1.0, -1.0, 0.0], n_items, p=[to_wrong, to_right, 1 - to_wrong - to_right])

    return draw


SETTINGS: dict[str, tuple[Draw, float, float, float]] = {
    "loss of 0.02, none gained": (changes(0.02, 0.0), -1.0, 1.0, 0.02),
    "loss of 0.02, 0.02 gained": (changes(0.04, 0.02), -1.0, 1.0, 0.02),
    "loss of 0.02, 0.1 gained": (changes(0.12, 0.1), -1.0, 1.0, 0.02),
    "1 % ruined": (ruined, 0.0, 10.0, 0.04),
    "lognormal": (heavy, 0.0, 10.0, float(heavy(np.random.default_rng(0), 4_000_000).mean())),
    "half a step of set size": (lambda rng, n: rng.normal(0.1, 0.6, n).clip(-2.9, 3.1), -3.0, 3.2, 0.1),
}


@pytest.mark.slow
@pytest.mark.parametrize("n_items", [20, 100, 200, 500])
@pytest.mark.parametrize("setting", SETTINGS)
def test_either_bound_is_false_at_most_as_often_as_stated(setting: str, n_items: int) -> None:
    """With the truth exactly at a limit, 2.5 % pass at most, and as many fail; 4 % of 500 samples is two Monte Carlo errors more."""
    draw, least, most, truth = SETTINGS[setting]
    rng = np.random.default_rng(n_items)
    found = [mean_interval(draw(rng, n_items), least, most, TAIL) for _ in range(500)]
    assert np.mean([high < truth for _, high in found]) <= 0.04
    assert np.mean([low > truth for low, _ in found]) <= 0.04
