"""Intervals of set size at atoms and gaps of the score, where the influence of items says nothing."""

from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from scipy.special import betainc, betaincc, betaincinv

from analyzer.conformal.influence import split_influence
from analyzer.conformal.ranks import rank_scores, threshold_rank
from analyzer.conformal.set_size_interval import SetInversion, bends_at_threshold, no_interval
from analyzer.conformal.split_law import SetStatistics, rank_law, set_statistics
from analyzer.conformal.split_moments import moments
from analyzer.conformal.tilted_items import Populations, Threshold, level_chances
from analyzer.scorers import SCORERS
from analyzer.stats.combined import average, difference
from analyzer.stats.estimate import Estimate, Interval
from analyzer.stats.probs import softmax

Asked = tuple[str, str, Fraction, int]
ATOM_4, ATOM_6 = ("some skill", "aps", Fraction(1, 20), 4), ("little skill", "aps", Fraction(1, 20), 6)
MODES, SMOOTH = ("sure either way", "lac", Fraction(1, 10), 4), ("some skill", "lac", Fraction(1, 10), 4)


class Found(NamedTuple):
    size: Estimate
    threshold: Threshold
    inversion: SetInversion


def sample(rng: np.random.Generator, kind: str, n_items: int, n_options: int) -> tuple[np.ndarray, np.ndarray]:
    answer = rng.integers(0, n_options, n_items)
    logits, items = rng.normal(size=(n_items, n_options)), np.arange(n_items)
    if kind == "some skill":
        logits[items, answer] += rng.gamma(2, 0.8, n_items)
    elif kind == "little skill":
        logits[items, answer] += 0.5
    else:  # right in 90 % and sure of it, else as sure of another option
        chosen = np.where(rng.random(n_items) < 0.9, answer, (answer + rng.integers(1, n_options, n_items)) % n_options)
        logits *= 0.5
        logits[items, chosen] += 5
    return logits, answer


def measured(logits: np.ndarray, answer: np.ndarray, scorer: str, alpha: Fraction) -> Found:
    probs = softmax(logits, np.full(len(answer), logits.shape[1]))
    ranks = rank_scores(SCORERS[scorer](probs), answer, probs)
    law = rank_law(len(answer), len(answer) // 2, threshold_rank(len(answer) // 2, alpha))
    known = set_statistics(ranks)
    influence = split_influence(law, ranks.item_rank, known)
    size = known.estimates(moments(law, known).mean, influence, None)["set_size"]
    threshold, place = Threshold(law, ranks), known.names.index("set_size")
    populations = Populations(threshold, known.table.rows, known.steps, known.start)
    inversion = SetInversion(populations, place, size.value, size.influence)
    return Found(size, threshold, inversion)


def interval(found: Found) -> Interval:
    return found.inversion.interval(0.95)


def test_an_atom_and_two_modes_are_seen_and_a_smooth_score_is_not() -> None:
    """Of 20 samples of 700 items nearly all with an atom or a gap at the threshold are known as such, none of a smooth score."""
    rng = np.random.default_rng(0)
    seen = {}
    for asked in (ATOM_4, ATOM_6, MODES, SMOOTH):
        kind, scorer, alpha, n_options = asked
        found = [measured(*sample(rng, kind, 700, n_options), scorer, alpha) for _ in range(20)]
        seen[asked] = sum(bends_at_threshold(one.threshold) for one in found)
    assert min(seen[ATOM_4], seen[ATOM_6]) == 20 and seen[MODES] >= 12 and seen[SMOOTH] == 0, seen


def test_a_smooth_score_has_the_same_interval_either_way() -> None:
    """Where nothing bends the inverted interval is that of the influences, within 15 % of its width at either end."""
    rng = np.random.default_rng(1)
    for _ in range(10):
        found = measured(*sample(rng, "some skill", 3_000, 4), "lac", Fraction(1, 10))
        linear, inverted = found.size.interval(), interval(found)
        width = linear.high - linear.low
        assert abs(linear.low - inverted.low) < 0.15 * width and abs(linear.high - inverted.high) < 0.15 * width


@pytest.mark.parametrize("n_items", [200, 2000])
def test_a_threshold_in_the_lowest_atom_leaves_an_interval(n_items: int) -> None:
    """Of a model that is right and sure up to rounding in 97 % of items, these have one option in their set and the others none."""
    rng, held, widths = np.random.default_rng(0), 0, []
    for _ in range(100):
        answer, logits = rng.integers(0, 4, n_items), rng.normal(size=(n_items, 4))
        sure = rng.random(n_items) < 0.97
        logits[sure, answer[sure]] = 2000
        low, high = interval(measured(logits, answer, "lac", Fraction(1, 10)))
        held += low <= 0.97 <= high
        widths.append(high - low)
    assert held >= 90
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.sqrt(0.97 * 0.03 / n_items), rel=0.1)


def test_items_with_one_score_leave_room_for_one_that_was_not_seen() -> None:
    """Where every option of 500 items has the same score all sets are full; the interval ends where an item with another one would."""
    logits, answer = np.zeros((500, 4)), np.random.default_rng(0).integers(0, 4, 500)
    found = measured(logits, answer, "lac", Fraction(1, 10))
    assert interval(found) == pytest.approx((4, 4), abs=1e-9)
    low, high = replace(found.inversion, unseen=0.002, _intervals={}).interval(0.95)
    assert low == pytest.approx(4 - 1.965 * 0.002, abs=1e-5) and high == pytest.approx(4 + 1.965 * 0.002, abs=1e-5)


def plain_mean(threshold: Threshold, known: SetStatistics, place: int, weights: np.ndarray) -> float:
    """The mean of a statistic when calibration and test items are drawn with these weights, rank by rank."""
    law, n_items = threshold.law, threshold.law.n_items
    by_rank = np.empty(n_items)
    by_rank[threshold.ranks.item_rank] = weights
    level = np.minimum(by_rank.cumsum() / n_items, 1.0)
    level[-1] = 1.0
    chance = np.diff(betainc(law.k, law.n_calibration + 1 - law.k, level), prepend=0.0)
    total = 0.0
    for rank in range(n_items):
        values = known.start[place] + known.steps[place] @ (known.table.rows <= rank)
        total += chance[rank] * float(values @ weights) / weights.sum()
    return total


@pytest.mark.parametrize(("k", "n"), [(1, 20), (16, 20), (2, 60), (300, 600), (1, 5_000), (2_500, 5_000), (4_951, 5_000)])
def test_the_chances_of_levels_are_the_incomplete_beta_function(k: int, n: int) -> None:
    """Between the knots they are within 1e-9, and at and beyond the ends exactly 1 and 0."""
    chances = level_chances(k, n)
    levels = np.random.default_rng(0).uniform(chances.low, chances.high, 10_000)
    np.testing.assert_allclose(chances.at(levels), betaincc(k, n + 1 - k, levels), rtol=0, atol=1e-9)
    np.testing.assert_allclose(chances.at(np.array([0.0, chances.low, chances.high, 1.0])), [1, 1, 0, 0], rtol=0, atol=1e-15)


@pytest.mark.parametrize(("alpha", "n_items"), [(Fraction(1, 20), 300), (Fraction(1, 2), 300), (Fraction(9, 10), 120)])
def test_tilted_populations_are_those_computed_rank_by_rank(alpha: Fraction, n_items: int) -> None:
    """At every boundary and in both directions all four statistics are the plain sums over threshold ranks, for some members as for all."""
    found = measured(*sample(np.random.default_rng(5), "some skill", n_items, 4), "aps", alpha)
    populations, law = found.inversion.populations, found.threshold.law
    known = set_statistics(found.threshold.ranks)
    untilted = [plain_mean(found.threshold, known, place, np.ones(n_items)) for place in range(4)]
    np.testing.assert_allclose(populations.tilted(0.9).middle, untilted, rtol=0, atol=1e-10)
    for boundary, ends in zip(populations.boundaries, populations.tilted(0.9).extremes, strict=True):
        beyond = found.threshold.ranks.item_rank >= boundary
        shares = betaincinv(beyond.sum() + 0.5, law.n_items - beyond.sum() + 0.5, [0.05, 0.95])
        for share, means in zip(shares, ends, strict=True):
            weights = np.where(beyond, share / beyond.mean(), (1 - share) / (1 - beyond.mean()))
            plain = [plain_mean(found.threshold, known, place, weights) for place in range(4)]
            np.testing.assert_allclose(means, plain, rtol=0, atol=1e-10)
    everything = replace(populations, member=np.ones(n_items, dtype=np.bool_), _by_level={})
    np.testing.assert_allclose(everything.tilted(0.9).extremes, populations.tilted(0.9).extremes, rtol=0, atol=1e-12)
    odd = np.arange(n_items) % 2 == 1
    halves = [replace(populations, member=half, _by_level={}).tilted(0.9).middle for half in (odd, ~odd)]
    np.testing.assert_allclose(np.mean(halves, axis=0), populations.tilted(0.9).middle, rtol=0, atol=1e-12)


def test_few_items_beyond_the_threshold_give_no_interval() -> None:
    """At alpha 0.01 a hundred calibration items leave one above the threshold: no interval is better than one that is false."""
    found = measured(*sample(np.random.default_rng(2), "some skill", 200, 4), "lac", Fraction(1, 100))
    assert np.isnan(interval(found)).all() and "1 is expected" in str(no_interval(found.threshold.law))
    assert bends_at_threshold(found.threshold)


class Given(NamedTuple):
    """An interval that is known."""

    low: float
    high: float

    def interval(self, level: float) -> Interval:
        return Interval(self.low, self.high)


def test_differences_and_means_of_inverted_intervals_by_hand() -> None:
    """Independent widths add in quadrature; equal runs differ by what no item shows; a mean errs as both do; less is more turned round."""
    one = Estimate(2.0, np.array([1.0, -1.0, 1.0, -1.0] * 5_000), inverted=Given(1.7, 2.4))
    other = Estimate(2.5, np.array([1.0, 1.0, -1.0, -1.0] * 5_000), inverted=Given(2.1, 2.8))
    assert difference(other, one).interval() == pytest.approx((0.5 - np.hypot(0.4, 0.4), 0.5 + np.hypot(0.3, 0.3)), abs=1e-6)
    assert difference(one, one).interval() == pytest.approx((0, 0), abs=2e-4)
    assert average([one, other]).interval() == pytest.approx((1.9, 2.6))
    assert (-one).interval() == pytest.approx((-2.4, -1.7)) and one.complement().interval() == pytest.approx((-1.4, -0.7))
    assert one.error == pytest.approx(0.7 / (2 * 1.96), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("n_items", [200, 600])
@pytest.mark.parametrize("asked", [ATOM_4, ATOM_6, MODES, SMOOTH])
def test_inverted_intervals_hold_the_truth_where_influences_do_not(asked: Asked, n_items: int) -> None:
    """Over 300 samples at least 93 % hold the mean of the estimator (two Monte Carlo errors less), those of influences as few as 41 %."""
    kind, scorer, alpha, n_options = asked
    rng = np.random.default_rng(3)
    found = [measured(*sample(rng, kind, n_items, n_options), scorer, alpha) for _ in range(300)]
    truth = np.mean([one.size.value for one in found])
    held = [low <= truth <= high for low, high in map(interval, found)]
    assert np.mean(held) >= 0.93 - 2 * np.sqrt(0.93 * 0.07 / 300)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [ATOM_4, ATOM_6, MODES])
def test_inverted_intervals_of_a_change_hold_the_truth(asked: Asked) -> None:
    """A model and its noisier copy on 300 samples of 600 items: at least 93 % hold the mean change, those of influences 57 % at an atom."""
    kind, scorer, alpha, n_options = asked
    rng = np.random.default_rng(4)
    changes = []
    for _ in range(300):
        logits, answer = sample(rng, kind, 600, n_options)
        runs = [measured(one, answer, scorer, alpha) for one in (logits, logits + 0.6 * rng.normal(size=logits.shape))]
        changes.append(difference(*(replace(one.size, inverted=one.inversion) for one in reversed(runs))))
    truth = np.mean([one.value for one in changes])
    held = [low <= truth <= high for low, high in (one.interval() for one in changes)]
    assert np.mean(held) >= 0.93 - 2 * np.sqrt(0.93 * 0.07 / 300)
