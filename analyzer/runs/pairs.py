"""Pairs: a compressed run and the run that it is compared with, over the items that both answered.

The partner is the dense run of the same model, task and prompt, or with `against` that of another model. Runs that did not answer the same
questions in the same way are refused; the error says what differs.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from analyzer.runs.view import RunView
from analyzer.stats.arrays import IntArray
from schemas.errors import ComparisonError
from schemas.fields import COMPUTED_AS
from schemas.run import DENSE, RunKey

SAME_KEY = {"prompt_hash": "wording of the prompt", "option_tokens": "option tokens", "revision": "revision of the weights"}

Row = Mapping[str, Any]


class Pair(NamedTuple):
    """The items that both runs answered with finite logits, in the same order."""

    dense: RunView
    compressed: RunView


@dataclass(frozen=True)
class Partners:
    """Which run each run is compared with.

    rows         : the selected rows of the catalog.
    against      : a model with whose dense runs all others are compared; None pairs each run with its own model's dense run.
    common_items : compare runs that answered different items on the items they share.
    """

    rows: Sequence[Row]
    against: str | None = None
    common_items: bool = False
    _dense: dict[tuple[str, str, str], list[Row]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for row in self.rows:
            if row["method"] == DENSE:
                self._dense[row["model"], row["task"], row["prompt"]].append(row)

    def of(self, row: Row) -> Row | None:
        """Return the partner's row, or None; of several candidates, the most similar in items, tokens, dtype, backend and seed.

        Raises ComparisonError if several are equally similar.
        """
        candidates = self._dense.get((self.against or row["model"], row["task"], row["prompt"]), [])
        if not candidates or (row["method"] == DENSE and self.against in (None, row["model"])):
            return None
        same = [dense for dense in candidates if dense["items_hash"] == row["items_hash"]] or candidates
        same = [dense for dense in same if row["tokens_hash"] and dense["tokens_hash"] == row["tokens_hash"]] or same
        likeness = [sum(dense[name] == row[name] for name in COMPUTED_AS) for dense in same]
        best = [dense for dense, alike in zip(same, likeness, strict=True) if alike == max(likeness)]
        if len(best) > 1:
            names = ", ".join(dense["name"] for dense in best)
            raise ComparisonError(f"run {row['name']} has {len(best)} dense partners alike in {', '.join(COMPUTED_AS)}: {names}")
        return best[0]


def pair_views(dense: RunView, compressed: RunView, *, common_items: bool = False) -> Pair:
    """Return both runs on the items for which both have finite logits; the same views if no item has to be left out.

    common_items : compare runs over different item sets on the items with equal content.
    Raises ComparisonError that says what differs.
    """
    if dense.key.model == compressed.key.model:
        _check_keys(dense.key, compressed.key)
    if dense.items.digest == compressed.items.digest:
        return Pair(_at_positions(dense, compressed.position), _at_positions(compressed, dense.position))
    return _intersection(dense, compressed, common_items)


def _check_keys(dense: RunKey, compressed: RunKey) -> None:
    """Raise ComparisonError if two runs of a model differ in more than expected: checkpoints differ in weights, prompts in wording."""
    for name, words in SAME_KEY.items():
        values = getattr(dense, name), getattr(compressed, name)
        other_weights, other_words = compressed.method == "checkpoint", dense.prompt != compressed.prompt
        expected = (name == "revision" and other_weights) or (name == "prompt_hash" and other_words)
        if all(values) and values[0] != values[1] and not expected:
            both = " and ".join(str(value) for value in values)
            raise ComparisonError(f"{compressed.name} cannot be compared with {dense.name}: they differ in {words} ({both})")


def _at_positions(view: RunView, positions: IntArray) -> RunView:
    if np.array_equal(view.position, positions):
        return view
    chosen = np.isin(view.position, positions)
    return view if chosen.all() else view.keep(chosen)


def _intersection(dense: RunView, compressed: RunView, common_items: bool) -> Pair:
    first, second = _equal_items(dense, compressed)
    if not common_items or not first.size:
        shared = np.intersect1d(dense.items.item_id[dense.position], compressed.items.item_id[compressed.position]).size
        raise ComparisonError(
            f"{compressed.row['name']} ({compressed.n_items} items) cannot be compared with {dense.row['name']} ({dense.n_items} items): "
            f"they share {max(shared, first.size)} questions, {max(shared - first.size, 0)} of them with other options, order or answer; "
            + (f"--common-items compares on the {first.size} equal ones" if first.size else "no item is the same in both")
            + "; ask both with the same --limit and --seed, or leave one out (--model, --method, --level, or store rm NAME --message WHY)"
        )
    chosen = compressed.keep(second)
    return Pair(replace(dense.keep(first), items=chosen.items, position=chosen.position, grouping=chosen.grouping), chosen)


def _equal_items(dense: RunView, compressed: RunView) -> tuple[IntArray, IntArray]:
    """Return where the items of equal content stand in both runs, in the compressed run's order.

    Of a question that stands several times in both, the first is paired with the first, the second with the second. Their ids number it in
    the order of a draw, which is another one in another draw.
    """
    where = {item: number for number, item in enumerate(_numbered(dense))}
    found = [(where[item], number) for number, item in enumerate(_numbered(compressed)) if item in where]
    first, second = np.array(found, np.intp).reshape(-1, 2).T
    return first, second


def _numbered(view: RunView) -> Iterator[tuple[bytes, int]]:
    """Yield the content of every item, and how many items of this content stand before it."""
    seen = Counter[bytes]()
    for digest in view.items.content[view.position]:
        content = digest.tobytes()
        yield content, seen[content]
        seen[content] += 1
