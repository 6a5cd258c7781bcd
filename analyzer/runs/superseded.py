"""Runs that were asked again with more questions: both are in the store, and the larger one says all that the smaller one does.

In: views of runs.  Out: which of them another one makes superfluous. A release is then judged, and a threshold calibrated, on the larger.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from analyzer.runs.view import RunView
from schemas.fields import KEY_COLUMNS
from schemas.itemset import ItemSet

ASKED = ("items_hash", "tokens_hash")  # what differs between two runs that differ in their questions alone


def superseded(views: Iterable[RunView]) -> dict[str, str]:
    """Return by name of a run the name of the run that answers the same questions and more, and differs from it in nothing else.

    A question is the same if its id, text, options and answer are. Of several larger runs the largest is named.
    """
    alike: dict[tuple[Any, ...], dict[str, RunView]] = defaultdict(dict)
    for view in views:
        alike[tuple(view.row[name] for name in KEY_COLUMNS if name not in ASKED)][view.row["name"]] = view
    return {name: larger for group in alike.values() if len(group) > 1 for name, larger in _within(group)}


def _within(group: dict[str, RunView]) -> Iterator[tuple[str, str]]:
    questions = {name: _questions(view.items) for name, view in group.items()}
    for name, asked in questions.items():
        larger = [other for other, more in questions.items() if asked < more]
        if larger:
            yield name, max(larger, key=lambda other: len(questions[other]))


def _questions(items: ItemSet) -> set[tuple[bytes, bytes]]:
    return {(item.tobytes(), content.tobytes()) for item, content in zip(items.item_id, items.content, strict=True)}
