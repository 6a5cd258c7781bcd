"""Drawn splits: the counting kernels against a naive loop, and the splits themselves."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from analyzer.conformal.drawn_splits import drawn_values
from analyzer.conformal.ranks import Ranks, rank_scores
from analyzer.conformal.split_law import SetStatistics, set_statistics
from analyzer.conformal.splits import draw_splits, draw_stratified, given_split, parse_split
from schemas.errors import UsageError


def naive(known: SetStatistics, ranks: Ranks, calibrates: np.ndarray, k: int) -> np.ndarray:
    calibration = sorted(ranks.item_rank[calibrates])
    p = math.inf if k > len(calibration) else calibration[k - 1]
    p = min(p, ranks.n_items)
    hit = known.table.rows[:, ~calibrates] <= p
    return known.start + (known.steps @ hit).mean(axis=1)


def tied_ranks(rng: np.random.Generator, n_items: int, n_options: int) -> Ranks:
    scores = rng.integers(0, 12, size=(n_items, n_options)).astype(float)
    scores[::3, 2:] = np.nan
    answer = rng.integers(0, 2, n_items)
    return rank_scores(scores, answer, np.where(np.isnan(scores), np.nan, 0.5))


@pytest.mark.parametrize("numba", [False, True])
@pytest.mark.parametrize(("n_items", "n_options"), [(2, 2), (7, 3), (64, 4), (100, 26), (256, 3), (700, 2)])
def test_kernels_count_what_a_naive_loop_counts(numba: bool, n_items: int, n_options: int) -> None:
    """Every statistic of every split at every alpha equals the plain count, ties, ragged options and +inf thresholds included."""
    if numba:
        pytest.importorskip("numba")
    ranks = tied_ranks(np.random.default_rng(n_items), n_items, n_options)
    known = set_statistics(ranks, sizes=True)
    n = n_items // 2
    masks, ks = draw_splits(n_items, n, range(9)), [1, max(1, n // 2), n, n + 1, n + 7]
    masks = np.concatenate([masks, [ranks.item_rank < n, ranks.item_rank >= n_items - n]])  # stated splits may be this far from random
    values = drawn_values(known, ranks.item_rank, masks, ks, numba=numba)
    for split, mask in enumerate(masks):
        for place, k in enumerate(ks):
            np.testing.assert_allclose(values[split, place], naive(known, ranks, mask, k), rtol=0, atol=1e-12)


def test_numba_and_numpy_give_identical_results() -> None:
    """The optional kernel changes no digit."""
    pytest.importorskip("numba")
    ranks = tied_ranks(np.random.default_rng(1), 500, 5)
    known, masks = set_statistics(ranks), draw_splits(500, 200, range(20))
    both = [drawn_values(known, ranks.item_rank, masks, range(1, 201), numba=numba) for numba in (False, True)]
    np.testing.assert_array_equal(*both)


def test_many_items_are_sorted_alike() -> None:
    """Ranks that no longer fit in 16 bits give the plain count as well."""
    ranks = tied_ranks(np.random.default_rng(0), 2**16, 2)
    known, masks = set_statistics(ranks), draw_splits(2**16, 2**15, [0])
    values = drawn_values(known, ranks.item_rank, masks, [29_000], numba=False)
    np.testing.assert_allclose(values[0, 0], naive(known, ranks, masks[0], 29_000), rtol=0, atol=1e-12)


def test_every_choice_of_calibration_items_is_equally_likely() -> None:
    """Over many seeds each of the C(5, 2) choices comes up equally often (chi-square below its 99.9 % point)."""
    masks = draw_splits(5, 2, range(4_000))
    assert (masks.sum(axis=1) == 2).all()
    _, counts = np.unique(masks, axis=0, return_counts=True)
    assert len(counts) == 10
    assert ((counts - 400) ** 2 / 400).sum() < 27.9


@pytest.mark.parametrize(("n_items", "n"), [(10_000, 1), (10_000, 9_999), (1_000, 300), (3, 1)])
def test_a_split_has_exactly_its_calibration_items(n_items: int, n: int) -> None:
    """The count is exact for any fraction, however lopsided."""
    assert (draw_splits(n_items, n, range(3)).sum(axis=1) == n).all()


def test_stratified_splits_take_the_same_share_of_every_subject() -> None:
    """Each subject calibrates floor(fraction * size) of its items."""
    subject = np.repeat([0, 1, 2], [10, 21, 5])
    masks = draw_stratified(subject, Fraction(1, 2), range(4))
    for value, count in ((0, 5), (1, 10), (2, 2)):
        assert (masks[:, subject == value].sum(axis=1) == count).all()


def test_a_split_from_a_file_calibrates_its_items(tmp_path: Path) -> None:
    """`--split file:PATH` takes the listed ids, the owner's or ours, and refuses ids that are not there, and an empty or missing file."""
    path = tmp_path / "calibration.txt"
    path.write_text("7\n18446744073709551615\n")
    ids = np.array([3, 7, 2**64 - 1], dtype=np.uint64)
    split = parse_split(f"file:{path}")
    np.testing.assert_array_equal(given_split(ids, split), [[False, True, True]])
    with pytest.raises(UsageError, match="1 of 2 item ids that are not among the 2 items, such as '18446744073709551615'"):
        given_split(ids[:2], split)
    for text, marked in (("0001\r\nlaw/b c\n\n", [[True, False, True]]), ("7", [[False, True, False]]), ("3\n", [[True, False, False]])):
        path.write_text(text)
        np.testing.assert_array_equal(given_split(ids, parse_split(f"file:{path}"), ["0001", "7", "law/b c"]), marked)
    for text in ("abc", "-1", "18446744073709551616", "", "7\nabc", "0001\n3\n"):
        path.write_text(text)
        with pytest.raises(UsageError):
            given_split(ids, parse_split(f"file:{path}"), ["0001", "7", "law/b c"])
    with pytest.raises(UsageError, match="cannot read the split"):
        parse_split(f"file:{tmp_path}/none")
