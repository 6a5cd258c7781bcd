"""`analyze sets --p-values`: conformal p-values of every item's options, without choosing an alpha.

Option j of item i is in the set at alpha if and only if its p-value exceeds alpha. Source: Vovk, Gammerman & Shafer 2005, section 2.2.
"""

from collections.abc import Iterator
from string import ascii_uppercase

import numpy as np

from analyzer.measure.question import Question
from analyzer.measure.records import Record, same_fields
from analyzer.measure.scored import calibration_masks, parameter_text, scores_of
from analyzer.measure.unreliable import run_reasons
from analyzer.runs.clustering import BY_QUESTION
from analyzer.runs.loading import Runs
from analyzer.runs.view import RunView
from analyzer.stats.arrays import BoolArray, FloatArray
from schemas.errors import UsageError
from schemas.fields import FIELDS


def p_values(view: RunView, scorer: str, question: Question, calibrates: BoolArray | None) -> FloatArray:
    """Return (item, option) p-values; NaN for options that an item does not have.

    calibrates : (item,) bool, the calibration items. Each option of the others gets (1 + #{calibration scores >= its score}) / (n + 1), the
                 calibration items NaN. None compares every item with all the others: (1 + #{their scores >= its score}) / N.
    """
    scores = scores_of(view, view.probs, scorer, question)
    of_answer = scores[np.arange(view.n_items), view.answer]
    if calibrates is None:
        above = _at_least(scores, of_answer) - (of_answer[:, None] >= scores)
        values = (1 + above) / view.n_items
    else:
        values = (1 + _at_least(scores, of_answer[calibrates])) / (calibrates.sum() + 1)
        values[calibrates] = np.nan
    return np.where(np.isnan(scores), np.nan, values)


def p_value_records(runs: Runs, question: Question) -> list[Record]:
    """Return one record per run, scorer and item that does not calibrate.

    Raises UsageError for options that change thresholds or probs, and where several splits are drawn."""
    _check(question)
    return same_fields([record for view in runs.views() for scorer in question.scorers for record in _records(view, scorer, question)])


def _records(view: RunView, scorer: str, question: Question) -> Iterator[Record]:
    masks = None if question.split.exact or view.n_items < 2 else calibration_masks(view, question)
    calibrates = None if masks is None else masks[0]
    values = p_values(view, scorer, question, calibrates)
    run = {field: view.row[field] for field in FIELDS} | {"scorer": scorer}
    reason = "; ".join(run_reasons(view)) or None
    last = {"split": question.split.text, "run": view.row["name"], "snapshot": view.snapshot}
    parameters = parameter_text(scorer, question)
    for item in range(view.n_items) if calibrates is None else np.flatnonzero(~calibrates):
        answer, position = int(view.answer[item]), view.position[item]
        item_fields = {"id": view.items.original_ids[position], "item_id": int(view.items.item_id[position])}
        item_fields["subject"] = view.items.subjects[view.items.subject[position]]
        options = {f"p_{ascii_uppercase[j]}": float(p) for j, p in enumerate(values[item]) if not np.isnan(p)}
        judged = {"answer": ascii_uppercase[answer], "p_answer": float(values[item, answer])}
        yield run | item_fields | judged | options | {"parameters": parameters, "unreliable": reason} | last


def _at_least(scores: FloatArray, calibrating: FloatArray) -> FloatArray:
    """The number of calibration scores that are at least as large as each score."""
    return np.asarray(calibrating.size - np.searchsorted(np.sort(calibrating), scores), dtype=np.float64)


def _check(question: Question) -> None:
    asked = {
        "--protocol": question.protocol != "exact",
        "--by": question.by != "none",
        "--mondrian": question.mondrian != "none",
        "--reliability": question.reliability != "none",
        "--empty": question.empty != "keep",
        "--cluster": question.clustering != BY_QUESTION,
    }
    if wrong := [option for option, is_set in asked.items() if is_set]:
        raise UsageError(f"p-values are those of one score under the protocol exact; leave {' and '.join(wrong)} out")
    if question.split.seeds is not None and len(question.split.seeds) > 1:
        raise UsageError(f"p-values belong to one split; --split {question.split.text} draws several: take all, seed:K or file:PATH")
