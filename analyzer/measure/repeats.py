"""Questions that were asked more than once: their answers are alike, so the items carry less information than independent ones."""

import math
from typing import Any

import numpy as np

from analyzer.runs.answer_metrics import answer_metrics
from analyzer.runs.view import RunView
from analyzer.stats.clusters import design_effect


def repeats(view: RunView) -> dict[str, Any]:
    """Return `n_questions`, the number of different questions, and `design_effect`, which is None if no question is repeated.

    design_effect : variance of accuracy with each question's items as one cluster, divided by the variance for independent items.
    """
    distinct, question = np.unique(view.items.question[view.position], return_inverse=True)
    if distinct.size == view.n_items:
        return {"n_questions": distinct.size, "design_effect": None}
    effect = design_effect(answer_metrics(view)["accuracy"].influence, question)
    return {"n_questions": distinct.size, "design_effect": effect if math.isfinite(effect) else None}
