"""The tables of a report: every figure that a panel shows, as records that the functions behind the other commands return."""

from collections.abc import Callable, Iterator, Sequence
from string import ascii_uppercase
from typing import Any

import numpy as np

from analyzer.compare.compare import add_holm, pair_record
from analyzer.compare.paired import Paired
from analyzer.measure.question import Question
from analyzer.measure.records import Record, cell_record, interval_fields
from analyzer.measure.unreliable import cell_reasons, run_reasons
from analyzer.report.data.interactive import cost_rates, curves, size_rates
from analyzer.report.data.study import Study
from analyzer.stats.arrays import BoolArray
from analyzer.studies.cliffs import cliff_records
from analyzer.studies.frontier import frontier_records
from analyzer.studies.scale import scale_records
from analyzer.studies.threshold_transfer import kept_from_dense
from schemas.fields import FIELDS
from schemas.itemset import ItemSet

Tables = dict[str, list[Record]]
MOST_ITEMS, MOST_CHARACTERS = 20, 400  # flipped items shown of a pair, characters shown of a text
HASH_DIGITS = 16  # of the SHA-256 of the weights; `store show` prints all
DIRECTIONS = {"flips_to_wrong": "right to wrong", "flips_to_right": "wrong to right"}


def tables(study: Study) -> Tables:
    """Return every table by name; a table is empty if no run has figures for it."""
    named_tables = {name: make(study) for name, make in TABLES.items()}
    return named_tables | {"texts": item_texts(study, named_tables["items"])}


def first_question_tables(named_tables: Tables, question: Question) -> Tables:
    """Return the records of the first scorer and protocol, from which sentences are written."""
    chosen = {"scorer": question.scorers[0], "protocol": question.protocol}
    return {
        name: [record for record in records if all(record.get(field, value) == value for field, value in chosen.items())]
        for name, records in named_tables.items()
    }


def run_records(study: Study) -> list[Record]:
    """Return one record per run, scorer and protocol."""
    return [cell_record([cell.after], question) for question in study.request.questions for cell in study.cells[question.protocol]]


def pair_records(study: Study) -> list[Record]:
    """Return one record per compressed run, scorer and protocol: its changes and its verdict on two axes."""
    return _compared(study, study.pairs)


def all_records(study: Study) -> list[Record]:
    """Return one record per run, scorer and protocol, beside its dense run where it has one."""
    return _compared(study, study.cells.__getitem__)


def size_records(study: Study) -> list[Record]:
    """Return the rate of every set size of every run and scorer, one record each."""
    return [
        {"run": cell.row["name"], "scorer": cell.after.scorer, "protocol": "exact", "size": size} | interval_fields("rate", rate)
        for cell in study.exact_cells
        for size, rate in enumerate(size_rates(cell.after))
    ]


def cliff_table(study: Study) -> list[Record]:
    """Return one record per level of every sweep."""
    question = study.request.questions[0]
    return cliff_records(study.pairs(question.protocol), question, study.request.tolerances)


def scale_table(study: Study) -> list[Record]:
    """Return one record per model, method, level, task, prompt and scorer, each prompt apart for the filters. None if no size is known."""
    question = study.request.questions[0]
    records = [record for cells in _by_prompt(study.pairs(question.protocol)) for record in scale_records(cells, question)]
    return records if any(record["parameters"] is not None for record in records) else []


def transfer_table(study: Study) -> list[Record]:
    """Return one record per compressed run and scorer: coverage and set size with the dense threshold and after recalibrating."""
    question = study.request.exact
    pairs = [cell for cell in study.exact_pairs if cell.pair and cell.pair.dense.n_items > 1]
    return kept_from_dense(pairs, question) if question else []


def frontier_table(study: Study) -> list[Record]:
    """Return one record per run and scorer, dense ones included: is it on the frontier? None if no bytes are known."""
    question = study.request.questions[0]
    records = frontier_records(study.cells[question.protocol], question)
    return records if any(record["bytes"] is not None for record in records) else []


def subject_table(study: Study) -> list[Record]:
    """Return one record per pair, subject and direction of flip: the share of the subject's items, with its interval."""
    records = []
    for cell in _one_per_run(study):
        subject = cell.after.view.items.subject[cell.after.view.position]
        names = cell.after.view.items.subjects
        for number in np.unique(subject):
            records += _subject_records(cell, names[number] or "(all)", subject == number)
    return records


def item_table(study: Study) -> list[Record]:
    """Return the items of each pair whose answer turned from right to wrong or back, largest change of the answer's prob first."""
    return [record for cell in _one_per_run(study) for record in _flipped_items(cell)]


def item_texts(study: Study, items: Sequence[Record]) -> list[Record]:
    """Return question and options of each item named in `items` whose text is in the store; long texts are shortened."""
    named_items = {(record["task"], record["item"]) for record in items}
    sets = {row["items_hash"]: study.runs.view(row).items for row in study.runs.rows}
    return [record for one in sets.values() if one.texts for record in _texts(one, named_items)]


def unreliable_table(study: Study) -> list[Record]:
    """Return the runs that cannot be trusted, each reason once."""
    reasons: dict[tuple[str, str], Record] = {}
    for protocol, cells in study.cells.items():
        for cell in cells:
            name = cell.row["name"]
            for reason in (*run_reasons(cell.after.view), *cell_reasons(cell.after)):
                reasons.setdefault((name, reason), {"run": name, "protocol": protocol, "reason": reason})
    return list(reasons.values())


def noted_table(study: Study) -> list[Record]:
    """Return what was noted when the runs were made, each note of a run once."""
    notes: dict[tuple[str, str], Record] = {}
    for protocol, cells in study.cells.items():
        for cell in cells:
            for note in cell.after.view.env.notes:
                notes.setdefault((cell.row["name"], note), {"run": cell.row["name"], "protocol": protocol, "note": note})
    return list(notes.values())


def made_table(study: Study) -> list[Record]:
    """Return one record per run: which weights answered, when and with what it was made; "" for what an imported run does not say."""
    records = []
    for row in study.runs.rows:
        view = study.runs.view(row)
        libraries = ", ".join(f"{name} {version}" for name, version in sorted(view.env.libraries.items()))
        records.append(
            {"run": row["name"], "method": row["method"], "weights": view.key.weights_hash[:HASH_DIGITS], "revision": view.key.revision}
            | {"dtype": view.key.dtype, "backend": view.key.backend, "device": view.env.device}
            | {"date": view.env.created[:10], "libraries": libraries}
        )
    return records


def watch_table(study: Study) -> list[Record]:
    """Return what is known of live questions; [] if no predictor is watched."""
    return list(study.request.watch or ())


TABLES: dict[str, Callable[[Study], list[Record]]] = {
    "runs": run_records,
    "pairs": pair_records,
    "curves": curves,
    "sizes": size_records,
    "cliffs": cliff_table,
    "subjects": subject_table,
    "items": item_table,
    "scale": scale_table,
    "frontier": frontier_table,
    "transfer": transfer_table,
    "costs": cost_rates,
    "unreliable": unreliable_table,
    "noted": noted_table,
    "made": made_table,
    "watch": watch_table,
}


def _compared(study: Study, cells_of: Callable[[str], Sequence[Paired]]) -> list[Record]:
    """Return one record per cell of each protocol, with p-values adjusted over the protocol's cells."""
    records = []
    for question in study.request.questions:
        records += add_holm([pair_record([cell], question, study.request.tolerances) for cell in cells_of(question.protocol)])
    return records


def _by_prompt(cells: Sequence[Paired]) -> list[list[Paired]]:
    """Cells grouped by prompt and scorer; two runs of the same compressed model and task get separate groups, since a group is averaged."""
    runs_asked_alike: dict[tuple[Any, ...], list[str]] = {}
    groups: dict[tuple[Any, ...], list[Paired]] = {}
    for cell in cells:
        twins = runs_asked_alike.setdefault(tuple(cell.row[name] for name in (*FIELDS, "items_hash")), [])
        if cell.row["name"] not in twins:
            twins.append(cell.row["name"])
        groups.setdefault((cell.row["prompt"], cell.after.scorer, twins.index(cell.row["name"])), []).append(cell)
    return list(groups.values())


def _one_per_run(study: Study) -> Iterator[Paired]:
    """Yield one cell of every pair: the chosen options depend on no scorer and no alpha."""
    names = set()
    for cell in study.pairs(study.request.questions[0].protocol):
        if cell.row["name"] not in names and cell.after.view.n_items:
            names.add(cell.row["name"])
            yield cell


def _subject_records(cell: Paired, name: str, chosen: BoolArray) -> list[Record]:
    about = {"run": cell.row["name"], "subject": name, "n_items": int(chosen.sum())}
    return [
        about | {"direction": words} | interval_fields("share", cell.changes[change].among(chosen)) for change, words in DIRECTIONS.items()
    ]


def _flipped_items(cell: Paired) -> list[Record]:
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
            "answer": ascii_uppercase[compressed.answer[i]],
            "dense": ascii_uppercase[dense.chosen[i]],
            "compressed": ascii_uppercase[compressed.chosen[i]],
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
