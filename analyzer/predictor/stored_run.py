"""Apply a predictor to the items of a stored run: their sets, whether the sets cover, and whether single answers are right."""

import numpy as np

from analyzer.predictor.runtime import Judged, Predictor
from analyzer.runs.view import RunView
from analyzer.stats.arrays import BoolArray


def judge_view(predictor: Predictor, view: RunView) -> Judged:
    """Return the prediction sets, probabilities and scores that the predictor gives to the items of a run."""
    names = np.array(view.items.subjects)[view.items.subject[view.position]].tolist() if predictor.subjects else None
    return predictor.judge(np.asarray(view.logits, dtype=np.float64), view.n_options, names)


def answered_right(judged: Judged, view: RunView) -> BoolArray:
    """Return (item,) whether the single answer would be right: the option of a set of size 1, else the likeliest option."""
    single = judged.sets.sum(axis=1) == 1
    return np.asarray(np.where(single, judged.sets.argmax(axis=1), view.chosen) == view.answer)


def covered(predictor: Predictor, view: RunView) -> BoolArray:
    """Return (item,) whether the set under the predictor's threshold contains the correct answer."""
    return np.asarray(judge_view(predictor, view).sets[np.arange(view.n_items), view.answer])
