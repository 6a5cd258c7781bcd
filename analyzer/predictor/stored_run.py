"""A predictor on the items of a stored run: which way each question goes, and whether what is answered is right."""

import numpy as np

from analyzer.predictor.runtime import Judged, Predictor
from analyzer.runs.view import RunView
from analyzer.stats.arrays import BoolArray


def judge_view(predictor: Predictor, view: RunView) -> Judged:
    """Return the items of a run as the predictor judges them."""
    names = np.array(view.items.subjects)[view.items.subject[view.position]].tolist() if predictor.subjects else None
    return predictor.judge(np.asarray(view.logits, dtype=np.float64), view.n_options, names)


def answered_right(judged: Judged, view: RunView) -> BoolArray:
    """Return (item,) whether the option that would be answered alone is right: the only one in the set, else the likeliest."""
    single = judged.sets.sum(axis=1) == 1
    return np.asarray(np.where(single, judged.sets.argmax(axis=1), view.chosen) == view.answer)


def covered(predictor: Predictor, view: RunView) -> BoolArray:
    """Return (item,) whether the answer is in its set under the predictor's threshold."""
    return np.asarray(judge_view(predictor, view).sets[np.arange(view.n_items), view.answer])
