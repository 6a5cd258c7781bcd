"""Scorers against numbers worked by hand, and rules that every scorer keeps."""

import numpy as np
import pytest

from analyzer.scorers import RANDOM, SCORERS, check_scorers
from analyzer.stats.probs import softmax
from analyzer.stats.random_words import item_uniform
from schemas.errors import UsageError

PROBS = np.array([[0.5, 0.3, 0.15, 0.05], [0.25, 0.25, 0.5, np.nan]])
U = np.array([0.5, 0.25])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lac", [[0.5, 0.7, 0.85, 0.95], [0.75, 0.75, 0.5, np.nan]]),
        ("aps", [[0.5, 0.8, 0.95, 1.0], [0.75, 1.0, 0.5, np.nan]]),
        ("aps-rand", [[0.25, 0.65, 0.875, 0.975], [0.6875, 0.9375, 0.375, np.nan]]),
    ],
)
def test_scores_worked_by_hand_golden(name: str, expected: list[list[float]]) -> None:
    """Each scorer gives the definition's numbers; a tie goes to the lower option first, and no option has no score."""
    np.testing.assert_allclose(SCORERS[name](PROBS, U), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", SCORERS)
def test_a_likelier_option_is_never_stranger(name: str) -> None:
    """Along falling probs the scores of one item never fall."""
    rng = np.random.default_rng(1)
    probs = np.sort(rng.dirichlet(np.ones(6), size=300), axis=1)[:, ::-1]
    scores = SCORERS[name](probs, rng.random(300))
    assert (np.diff(scores, axis=1) >= -1e-12).all()


@pytest.mark.parametrize("name", SCORERS)
def test_items_are_scored_independently(name: str) -> None:
    """Any order of the items gives the same scores per item."""
    rng = np.random.default_rng(2)
    probs, u, order = rng.dirichlet(np.ones(5), size=50), rng.random(50), rng.permutation(50)
    np.testing.assert_array_equal(SCORERS[name](probs, u)[order], SCORERS[name](probs[order], u[order]))


@pytest.mark.parametrize("name", SCORERS)
def test_only_the_scorers_named_as_random_use_the_draw(name: str) -> None:
    """Another `u` changes no score of a scorer outside RANDOM, which scores without one too, and changes those of a scorer in it."""
    probs = np.random.default_rng(6).dirichlet(np.ones(5), size=50)
    scores, others = SCORERS[name](probs, np.full(50, 0.25)), SCORERS[name](probs, np.full(50, 0.75))
    assert np.array_equal(scores, others) == (name not in RANDOM)
    if name not in RANDOM:
        np.testing.assert_array_equal(SCORERS[name](probs), scores)


@pytest.mark.parametrize("scale", [0.3, 3.0, 40.0])
@pytest.mark.parametrize("name", SCORERS)
def test_the_order_of_options_changes_no_score_properties(name: str, scale: float) -> None:
    """Permuting an item's options permutes their probs and scores, bit by bit: logits without ties, 2 to 6 options, sure and unsure."""
    rng = np.random.default_rng(4)
    n_options = rng.integers(2, 7, 3_000)
    logits = (scale * rng.normal(size=(3_000, 6))).astype(np.float32)
    own = np.arange(6) < n_options[:, None]
    logits[~own] = np.nan
    order = np.argsort(np.where(own, rng.random(logits.shape), 2.0), axis=1)
    u = rng.random(3_000)
    probs = softmax(logits, n_options)
    permuted = softmax(np.take_along_axis(logits, order, axis=1), n_options)
    np.testing.assert_array_equal(np.take_along_axis(probs, order, axis=1), permuted)
    np.testing.assert_array_equal(np.take_along_axis(SCORERS[name](probs, u), order, axis=1), SCORERS[name](permuted, u))


@pytest.mark.parametrize(("name", "last"), [("aps", 1.0), ("raps", 1.0 + 0.1 * 4)])
def test_the_last_option_has_the_largest_score_exactly(name: str, last: float) -> None:
    """The least likely of six options scores what the definition says, without a rounding error, for every item."""
    probs = np.random.default_rng(5).dirichlet(np.ones(6), size=5_000)
    scores = SCORERS[name](probs)
    assert set(np.take_along_axis(scores, probs.argmin(axis=1)[:, None], axis=1).ravel()) == {last}


def test_an_unknown_scorer_is_refused_with_the_known_ones() -> None:
    """The message lists every registered scorer."""
    with pytest.raises(UsageError, match=f"'banana'; known: {', '.join(SCORERS)}"):
        check_scorers(["lac", "banana"])


def test_item_draws_are_uniform_and_fixed() -> None:
    """u depends on item_id alone and fills [0, 1) evenly."""
    ids = np.random.default_rng(3).integers(0, 2**63, 20_000).astype(np.uint64)
    u = item_uniform(ids)
    assert (u >= 0).all()
    assert (u < 1).all()
    assert np.abs(np.histogram(u, 10, (0, 1))[0] / 2_000 - 1).max() < 0.1
    np.testing.assert_array_equal(item_uniform(ids[:3]), u[:3])
