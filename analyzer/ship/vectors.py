"""Test vectors of a predictor: questions with their sets and decisions, by which a port to another language can be checked.

In: the JSON value of a predictor, the run that it was made on.  Out: the value with its vectors.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from analyzer.predictor.document import parse_document, sealed
from analyzer.predictor.runtime import Predictor
from analyzer.predictor.stored_run import judge_view
from analyzer.runs.view import RunView
from analyzer.stats.arrays import FloatArray

CLEAR = 1e-6  # smallest distance of a vector's scores from the threshold, so that rounding in a port cannot fail it
N_VECTORS, SYNTHETIC = 12, 4  # vectors from the run at most, and rows that ports often get wrong


def with_vectors(value: Mapping[str, Any], view: RunView) -> dict[str, Any]:
    """Return the value with test vectors: items of every set size, and rows that ports often get wrong: ties, large values, few options."""
    predictor = Predictor(parse_document(sealed(value)))
    width = view.logits.shape[1]
    hard_rows = [np.zeros(width), np.linspace(700, -700, width), 1e4 + np.arange(width) / 4, np.array([1.0, 0.25])]
    subject_of = view.items.subject[view.position]
    subjects = predictor.subjects
    rows: list[tuple[FloatArray, str | None]] = [(row, subjects[0] if subjects else None) for row in hard_rows]
    size = judge_view(predictor, view).sets.sum(axis=1)
    by_size = [np.flatnonzero(size == one) for one in np.unique(size)]
    order = np.argsort(np.concatenate([np.arange(same.size) for same in by_size]), kind="stable")  # the first of each size, the second, ...
    positions = np.concatenate(by_size)[order]
    for position in positions[: 4 * N_VECTORS]:
        row = view.logits[position, : view.n_options[position]].astype(np.float64)
        rows.append((row, view.items.subjects[subject_of[position]] if subjects else None))
    vectors = [vector for row, subject in rows if (vector := _vector(predictor, row, subject))]
    return {**value, "test_vectors": vectors[: N_VECTORS + SYNTHETIC]}


def _vector(predictor: Predictor, row: FloatArray, subject: str | None) -> dict[str, Any] | None:
    """Return one test vector; None if a score or the top prob is so close to its threshold that rounding elsewhere may cross it."""
    judged = predictor.judge(row[None], [row.size], subject)
    near = predictor.document.scorer != "topk" and np.nanmin(np.abs(judged.scores[0] - judged.threshold[0])) < CLEAR  # topk's are ranks
    alone = predictor.document.alone
    if near or (alone is not None and abs(np.nanmax(judged.probs[0]) - alone.threshold) < CLEAR):
        return None
    decision = str(predictor.decisions(judged)[0])
    inside = list(predictor.names(judged.sets[0]))
    return {"logits": [repr(float(one)) for one in row], "subject": subject, "set": inside, "decision": decision}
