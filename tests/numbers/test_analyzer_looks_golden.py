"""Repeated looks: published boundaries, and a gate that is asked twenty times and still errs in 2.5 %."""

import numpy as np
import pytest
from scipy.special import ndtri

from analyzer.stats.looks import SPENDING, look_tails
from analyzer.stats.mean_bounds import mean_upper_bound

PUBLISHED = {  # of five equally spaced looks, two-sided 5 %: the tables that every group-sequential program reproduces (gsDesign, ldbounds)
    "obrien-fleming": [4.877, 3.357, 2.680, 2.290, 2.031],
    "pocock": [2.438, 2.427, 2.410, 2.397, 2.386],
}


@pytest.mark.parametrize("spending", SPENDING)
def test_boundaries_are_the_published_ones_golden(spending: str) -> None:
    """Five equal looks have the published bounds, to the third decimal."""
    np.testing.assert_allclose(-ndtri(look_tails([200, 400, 600, 800, 1_000], 0.025, spending)), PUBLISHED[spending], atol=6e-4)


@pytest.mark.parametrize("spending", SPENDING)
def test_one_look_spends_everything(spending: str) -> None:
    """A single look is the fixed design; of several none has more than the whole tail, and they sum to more, since they overlap."""
    assert look_tails([500], 0.025, spending) == pytest.approx([0.025], rel=1e-4)
    tails = look_tails([100, 150, 500, 520, 600], 0.01, spending)
    assert tails.max() <= 0.01 < tails.sum()


def test_looks_that_do_not_grow_are_refused() -> None:
    """Counts must rise from one on."""
    for items in ([], [0, 5], [100, 100], [200, 100]):
        with pytest.raises(ValueError, match="rising counts"):
            look_tails(items, 0.025)


@pytest.mark.parametrize("spending", SPENDING)
def test_twenty_looks_err_as_often_as_one(spending: str) -> None:
    """Means of normal values looked at 20 times cross the boundary in 2.5 % (400,000 paths), where a fixed bound errs in over 10 %."""
    items = np.arange(100, 2_001, 100)
    tails = look_tails(items.tolist(), 0.025, spending)
    steps = np.random.default_rng(0).standard_normal((400_000, 20))
    z = steps.cumsum(axis=1) / np.sqrt(np.arange(1, 21))
    assert (z > -ndtri(tails)).any(axis=1).mean() == pytest.approx(0.025, abs=0.0008)
    assert (z > 1.96).any(axis=1).mean() > 0.1


def test_exact_bounds_at_the_looks_keep_the_error_of_rare_losses() -> None:
    """A true loss of 2 % at a limit of 2 %: over 20 looks at 100 to 2,000 items at most 2.5 % of 20,000 models ever pass."""
    items = np.arange(100, 2_001, 100)
    tails = look_tails(items.tolist(), 0.025)
    lost = np.random.default_rng(1).binomial(100, 0.02, (20_000, 20)).cumsum(axis=1)
    passes = np.zeros(lost.shape, dtype=bool)
    for look, (count, tail) in enumerate(zip(items, tails, strict=True)):
        bound = {x: mean_upper_bound((np.arange(count) < x).astype(float), 1.0, tail) for x in np.unique(lost[:, look])}
        passes[:, look] = [bound[x] < 0.02 for x in lost[:, look]]
    assert passes.any(axis=1).mean() < 0.025 + 2 * np.sqrt(0.025 / 20_000)
