"""`analyze predict`: prediction sets and decisions for a table of live questions, for servers that do not run Python."""

from typing import Any

import numpy as np

from analyzer.measure.records import Record
from analyzer.predictor import Partial, Predictor
from analyzer.watch.live_log import LiveLog
from schemas.errors import UsageError


def predict(predictor: Predictor, log: LiveLog) -> list[Record]:
    """Return one record per row: its set, the set's size, the decision, and `exact`, whether missing values cannot change the set.

    A row with missing values gets every option that may be in its set, and its decision follows from that set and the smallest possible
    top probability.
    """
    complete = log.complete
    subject = np.array(log.subject)[complete].tolist() if log.subject and predictor.subjects else None
    judged = predictor.judge(log.logits[complete], log.n_options[complete], subject)
    letters_of: dict[int, Any] = dict(zip(np.flatnonzero(complete).tolist(), predictor.names(judged.sets), strict=True))
    decision_of = dict(zip(letters_of, predictor.decisions(judged).tolist(), strict=True))
    records = []
    for row in range(len(log)):
        record: Record = {"row": log.first_row + row} | ({"id": log.ids[row]} if log.ids else {})
        if row in letters_of:
            letters, decision, exact = letters_of[row], decision_of[row], True
        else:
            partial = partial_row(predictor, log, row)
            letters, decision, exact = partial.set, predictor.decide_partial(partial), partial.exact
        records.append(record | {"set": " ".join(letters), "size": len(letters), "decision": decision, "exact": exact})
    return records


def unlike_calibration(predictor: Predictor, log: LiveLog) -> str:
    """Return a warning about questions with a number of options that no calibration question had; "" if there are none."""
    calibrated = {int(count) for count in predictor.document.value["option_counts"]}
    other = int((~np.isin(log.n_options, [0, *calibrated])).sum())
    if not other:
        return ""
    had = ", ".join(map(str, sorted(calibrated)))
    which = f"{other} of {len(log)} questions have another number of options than those that calibrated ({had})"
    return f"{which}: nothing is guaranteed for them"


def partial_row(predictor: Predictor, log: LiveLog, row: int) -> Partial:
    """Return the set of a row with missing values."""
    returned = {letter: float(value) for letter, value in zip(predictor.letters, log.logits[row], strict=True) if not np.isnan(value)}
    subject = log.subject[row] if log.subject and predictor.subjects else None
    try:
        return predictor.predict_partial(returned, float(log.at_most[row]), n_options=int(log.n_options[row]), subject=subject)
    except UsageError as error:
        raise UsageError(f"{log.name} row {log.first_row + row}: {error}") from error
