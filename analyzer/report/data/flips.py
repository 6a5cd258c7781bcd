"""Which answers turned from right to wrong or from wrong to right: the shares by subject, and the items themselves."""

from collections.abc import Iterator, Sequence

import numpy as np

from analyzer.compare.paired import Paired
from analyzer.measure.groups import LETTERS
from analyzer.measure.records import Record, interval_fields
from analyzer.report.data.study import Study
from analyzer.stats.arrays import BoolArray
from schemas.itemset import ItemSet

MOST_ITEMS, MOST_CHARACTERS = 20, 400
DIRECTIONS = {"flips_to_wrong": "right to wrong", "flips_to_right": "wrong to right"}


def subjects(study: Study) -> list[Record]:
    """Return one record per pair, subject and direction of flip: the share of the subject's items, with its interval."""
    records = []
    for cell in _one_per_run(study):
        subject = cell.after.view.items.subject[cell.after.view.position]
        names = cell.after.view.items.subjects
        for number in np.unique(subject):
            records += _subject_records(cell, names[number] or "(all)", subject == number)
    return records


def flipped_items(study: Study) -> list[Record]:
    """Return the items of each pair whose answer turned from right to wrong or back, largest change of the answer's prob first."""
    return [record for cell in _one_per_run(study) for record in _items(cell)]


def item_texts(study: Study, items: Sequence[Record]) -> list[Record]:
    """Return question and options of each item named in `items` whose text is in the store; long texts are shortened."""
    named_items = {(record["task"], record["item"]) for record in items}
    sets = {row["items_hash"]: study.runs.view(row).items for row in study.runs.rows}
    return [record for one in sets.values() if one.texts for record in _texts(one, named_items)]


def _one_per_run(study: Study) -> Iterator[Paired]:
    """Yield one cell of every pair: the chosen options depend on no scorer and no alpha."""
    seen = set()
    for cell in study.pairs(study.request.questions[0].protocol):
        if cell.row["name"] not in seen and cell.after.view.n_items:
            seen.add(cell.row["name"])
            yield cell


def _subject_records(cell: Paired, name: str, chosen: BoolArray) -> list[Record]:
    about = {"run": cell.row["name"], "subject": name, "n_items": int(chosen.sum())}
    return [
        about | {"direction": words} | interval_fields("share", cell.changes[change].among(chosen)) for change, words in DIRECTIONS.items()
    ]


def _items(cell: Paired) -> list[Record]:
    assert cell.pair is not None
    dense, compressed = cell.pair
    flipped = np.flatnonzero(dense.correct != compressed.correct)
    everywhere = np.arange(dense.n_items)
    change = compressed.probs[everywhere, compressed.answer] - dense.probs[everywhere, dense.answer]
    chosen = flipped[np.argsort(-np.abs(change[flipped]), kind="stable")][:MOST_ITEMS]
    return [
        {
            "run": cell.row["name"],
            "task": cell.row["task"],
            "item": f"{int(compressed.items.item_id[compressed.position[i]]):016x}",
            "id": compressed.items.original_ids[compressed.position[i]],
            "subject": compressed.items.subjects[compressed.items.subject[compressed.position[i]]],
            "answer": LETTERS[compressed.answer[i]],
            "dense": LETTERS[dense.chosen[i]],
            "compressed": LETTERS[compressed.chosen[i]],
            "answer_prob_change": float(change[i]),
        }
        for i in chosen
    ]


def _texts(items: ItemSet, named_items: set[tuple[str, str]]) -> Iterator[Record]:
    for item_id, item in zip(items.item_id, items.items, strict=True):
        if (items.task, f"{int(item_id):016x}") in named_items and item.choices:  # without choices it has no text
            options = "  ".join(f"{letter}. {option}" for letter, option in item.choices.items())
            yield {"task": items.task, "item": f"{int(item_id):016x}", "question": _cut(item.question), "options": _cut(options)}


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"
