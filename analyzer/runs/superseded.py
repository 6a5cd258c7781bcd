"""Runs that were asked again with more questions: both are in the store, and the larger one says all that the smaller one does.

In: views of runs.  Out: which of them another one makes superfluous. A release is then judged, and a threshold calibrated, on the larger.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from analyzer.runs.view import RunView
from schemas.fields import KEY_COLUMNS

ASKED = ("items_hash", "tokens_hash")  # what differs between two runs that differ in their questions alone


def superseded(views: Iterable[RunView]) -> dict[str, str]:
    """Return by name of a run the name of the run that answers the same questions and more, and differs from it in nothing else.

    A question is the same if its text, options in their order, answer and subject are. A question that stands in a benchmark several times
    is asked as often; its ids number it in the order of the draw, which differs in a larger one. Of several larger runs the largest is
    named.
    """
    alike: dict[tuple[Any, ...], dict[str, RunView]] = defaultdict(dict)
    for view in views:
        alike[tuple(view.row[name] for name in KEY_COLUMNS if name not in ASKED)][view.row["name"]] = view
    return {name: larger for group in alike.values() if len(group) > 1 for name, larger in _within(group)}


def _within(group: dict[str, RunView]) -> Iterator[tuple[str, str]]:
    questions = {name: Counter(content.tobytes() for content in view.items.content) for name, view in group.items()}
    for name, asked in questions.items():
        larger = [other for other, more in questions.items() if asked < more]
        if larger:
            yield name, max(larger, key=lambda other: questions[other].total())
