"""The worst group, corrected for having been picked: simulations with a known truth."""

import numpy as np
import pytest

from analyzer.stats.shrinkage import shrunken_shares


def worst(rng: np.random.Generator, truth: np.ndarray, items: int) -> tuple[float, int, float]:
    seen = rng.binomial(items, truth) / items
    found = shrunken_shares(seen, np.full(truth.size, float(items)))
    return float(found.min()), int(found.argmin()), float(seen.min())


def test_the_worst_of_healthy_groups_is_healthy() -> None:
    """57 groups of 35 items, all covered in 90 %: the least is 0.87 to 0.91 on average over 60 samples, as seen it is below 0.79."""
    rng = np.random.default_rng(0)
    found = [worst(rng, np.full(57, 0.9), 35) for _ in range(60)]
    assert 0.87 < np.mean([one[0] for one in found]) < 0.91 and np.mean([one[2] for one in found]) < 0.79


@pytest.mark.parametrize("items", [35, 200])
def test_a_bad_group_is_found_and_keeps_its_share(items: int) -> None:
    """One group of 57 with a true coverage of 0.6: it is the worst in 95 % of 40 samples, at 0.6 within 0.04 on average."""
    rng, truth = np.random.default_rng(1), np.full(57, 0.9)
    truth[3] = 0.6
    found = [worst(rng, truth, items) for _ in range(40)]
    assert np.mean([one[1] == 3 for one in found]) >= 0.95 and abs(np.mean([one[0] for one in found]) - 0.6) < 0.04


def test_the_choice_costs_nothing_where_groups_differ() -> None:
    """True shares spread like Beta(18, 2): what is said of the worst group is its true share within 0.02 on average over 60 samples."""
    rng = np.random.default_rng(2)
    off = []
    for _ in range(60):
        truth = rng.beta(18, 2, 57)
        found, place, _ = worst(rng, truth, 35)
        off.append(found - truth[place])
    assert abs(np.mean(off)) < 0.02


def test_many_items_keep_what_they_show() -> None:
    """Groups of 20,000 items are known: nothing is shrunk by more than 0.005; a single group and ends of the scale are no trouble."""
    seen = np.array([0.85, 0.9, 0.95])
    np.testing.assert_allclose(shrunken_shares(seen, np.full(3, 20_000.0)), seen, atol=0.005)
    assert shrunken_shares(np.array([1.0]), np.array([40.0]))[0] > 0.97
    assert shrunken_shares(np.array([0.0, 1.0]), np.array([30.0, 30.0])).min() >= 0
