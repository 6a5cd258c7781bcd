"""Intervals of set size at atoms and gaps of the score, where the influence of items says nothing."""

from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest

from analyzer.conformal.influence import split_influence
from analyzer.conformal.ranks import rank_scores, threshold_rank
from analyzer.conformal.set_size_interval import SetInversion, Threshold, bends_at_threshold, no_interval
from analyzer.conformal.split_law import moments, rank_law, set_statistics
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
    inversion = SetInversion(threshold, known.table.rows, known.steps[place], float(known.start[place]), size.value, size.influence)
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
