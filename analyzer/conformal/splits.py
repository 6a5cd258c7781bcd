"""Splits of the items into calibration and test items: `all` is the exact average over every split, others are random or from a file.

Split s of `--split N` is the split `--split seed:s`. It depends only on the number of items (and their subjects, if stratified), so all
runs over the same items get the same splits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np

from analyzer.stats.arrays import BoolArray, IntArray
from analyzer.stats.random_words import Words, random_rows, random_words
from schemas.errors import UsageError
from schemas.json_text import read_text

BYTE, WORD = 256, 8  # values of a byte, bytes of a word
SPARE = 4  # random items drawn for each one that must change sides, doubled until enough of them are different and on the right side
CHUNK = 2**20  # number of (split, item) cells drawn at the same time
MAX_SPLITS, MAX_SEED = 100_000, 2**63 - 2


@dataclass(frozen=True)
class Split:
    """A parsed `--split`: random splits have one seed each, a split from a file has its calibration items, and `all` has neither."""

    text: str
    seeds: range | None = None
    calibration_ids: frozenset[str] | None = None

    @property
    def exact(self) -> bool:
        """Whether it stands for the exact average over every split."""
        return self.seeds is None and self.calibration_ids is None


ALL = Split("all")
MAX_DIGITS = 20  # Python refuses to read a whole number of thousands of digits


def parse_split(text: str) -> Split:
    """Return the split that a text names: `all`, a number of random splits, `seed:K` for one split, or `file:PATH`.

    A file lists the calibration items, one per line, by their original ids or by their item_id in decimal. Raises UsageError that lists
    the accepted forms.
    """
    if text == "all":
        return ALL
    if text.startswith("file:"):
        return Split(text, calibration_ids=_read_ids(Path(text.removeprefix("file:"))))
    seed = text.removeprefix("seed:")
    if not (seed.isascii() and seed.isdecimal() and len(seed) <= MAX_DIGITS):
        raise UsageError(f"split {text!r:.60} is not valid; expected all, a number of splits, seed:K, or file:PATH")
    number = int(seed)
    if seed != text:
        if number > MAX_SEED:
            raise UsageError(f"split {text!r}: a seed must be from 0 to {MAX_SEED}")
        return Split(text, range(number, number + 1))
    if not 1 <= number <= MAX_SPLITS:
        raise UsageError(f"split {text!r}: the number of splits must be from 1 to {MAX_SPLITS}")
    return Split(text, range(number))


@cache  # in exact arithmetic, which is slow
def calibration_size(n_items: int, fraction: Fraction) -> int:
    """Return the number of calibration items, floor(fraction * N). Raises UsageError if either side would be empty."""
    n = int(n_items * fraction)
    if not 1 <= n < n_items:
        raise UsageError(f"calibration fraction {float(fraction):g} of {n_items} items calibrates {n}, tests {n_items - n}; both need one")
    return n


def draw_splits(n_items: int, n_calibration: int, seeds: Iterable[int]) -> BoolArray:
    """Return (split, item) bool, true where an item calibrates; each row has n_calibration of them, drawn uniformly over all choices."""
    return _draw(np.asarray(list(seeds)), n_items, n_calibration)


def draw_stratified(subject: IntArray, fraction: Fraction, seeds: Iterable[int]) -> BoolArray:
    """Return (split, item) bool with floor(fraction * size) items of every subject; subject is (item,)."""
    members = [np.flatnonzero(subject == value) for value in np.unique(subject)]
    seeds = np.asarray(list(seeds))
    masks = np.zeros((len(seeds), subject.size), dtype=np.bool_)
    for stream, items in enumerate(members):
        masks[:, items] = _draw(seeds, items.size, int(items.size * fraction), 2 * stream)
    if not masks[0].any():
        raise UsageError(f"calibration fraction {float(fraction):g} leaves no calibration item in any of the {len(members)} subjects")
    return masks


def given_split(item_id: IntArray, split: Split, original_ids: Sequence[str] = ()) -> BoolArray:
    """Return (1, item) bool for a split read from a file. Raises UsageError if one side is empty or an id is not among the items.

    original_ids : (item,) original ids. The file lists either these or item_ids, but not both kinds, so that an id such as 12 has one
                   meaning.
    """
    calibration_ids = split.calibration_ids or frozenset()
    by_number, by_name = frozenset(map(str, item_id.tolist())), frozenset(original_ids)
    ids = original_ids if len(calibration_ids - by_name) <= len(calibration_ids - by_number) else [str(one) for one in item_id.tolist()]
    if missing := calibration_ids - frozenset(ids):
        raise UsageError(
            f"split {split.text!r} names {len(missing)} of {len(calibration_ids)} item ids that are not among the {item_id.size} items, "
            f"such as {min(missing)[:80]!r}"
        )
    mask = np.array([one in calibration_ids for one in ids], dtype=np.bool_)
    if not 0 < mask.sum() < mask.size:
        raise UsageError(f"split {split.text!r} calibrates {mask.sum()} of {mask.size} items; both sides need one")
    return np.asarray(mask[None])


def _draw(seeds: IntArray, n_items: int, n: int, stream: int = 0) -> BoolArray:
    """Return (split, item) bool with n of each row true, some splits at a time; uses the random streams `stream` and `stream` + 1."""
    step = max(1, CHUNK // n_items)
    return np.concatenate([_draw_some(seeds[i : i + step], n_items, n, stream) for i in range(0, seeds.size, step)])


def _draw_some(seeds: IntArray, n_items: int, n: int, stream: int) -> BoolArray:
    """Choose each item at random from the bytes of hashed words, then flip random items until the count is n: uniform by symmetry."""
    chosen = random_words(seeds, -(-n_items // WORD), stream).view(np.uint8)[:, :n_items] < BYTE * n // n_items
    excess = np.count_nonzero(chosen, axis=1) - n
    rows, spare = np.flatnonzero(excess), SPARE
    while rows.size:
        turned = _turn(chosen, rows, excess[rows], random_rows(seeds[rows], spare * np.abs(excess[rows]), stream + 1))
        rows, spare = rows[~turned], 2 * spare
    return chosen


def _turn(chosen: BoolArray, rows: IntArray, excess: IntArray, words: Words) -> BoolArray:
    """Flip in each row as many different items as it has too many or too few, in the order of its words; False if the words ran out."""
    n_items = chosen.shape[1]
    item = (words.word % np.uint64(n_items)).astype(np.int64) + rows[words.row] * n_items
    flat, too_many = chosen.reshape(-1), excess > 0
    eligible = np.flatnonzero(flat[item] == too_many[words.row])
    item, row = item[eligible], words.row[eligible]
    first = np.empty(flat.size, dtype=np.int32)
    first[item[::-1]] = np.arange(item.size, dtype=np.int32)[::-1]  # of equal items the earliest is written last
    different = first[item] == np.arange(item.size)
    item, row = item[different], row[different]
    available = np.bincount(row, minlength=rows.size)
    needed = np.abs(excess)
    enough = available >= needed
    flipped = enough[row] & (np.arange(row.size) - (available.cumsum() - available)[row] < needed[row])
    flat[item[flipped]] ^= True
    return np.asarray(enough)


def _read_ids(path: Path) -> frozenset[str]:
    """Return the ids of a file, one per line; an id may contain spaces."""
    try:
        lines = read_text(path).split("\n")
    except ValueError as error:
        raise UsageError(f"cannot read the split from {path}: {error}") from error
    ids = frozenset(line.removesuffix("\r") for line in lines) - {""}
    if not ids:
        raise UsageError(f"{path} names no calibration item")
    return ids
