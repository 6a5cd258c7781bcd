"""Items that depend on each other, such as a question that was asked more than once: they carry less information than independent ones."""

import math
from functools import lru_cache
from typing import Any

import numpy as np

from analyzer.runs.answer_metrics import answer_metrics
from analyzer.runs.view import RunView
from analyzer.stats.clusters import design_effect

RECENT = 4  # runs whose answer is cached: every scorer, alpha and check of a run needs the same one


@lru_cache(maxsize=RECENT)
def dependence(view: RunView) -> dict[str, Any]:
    """Return how many units the items are.

    n_questions   : number of different questions.
    n_clusters    : number of clusters, which count as one unit each: the questions, unless another clustering was chosen.
    design_effect : variance of accuracy with these clusters, divided by the variance for independent items; None if every item is a
                    cluster of its own, or if nothing varies.
    """
    n_questions = np.unique(view.items.question[view.position]).size
    clusters = view.clusters
    if clusters is None:
        return {"n_questions": n_questions, "n_clusters": view.n_items, "design_effect": None}
    numbers = np.unique(clusters.code, return_inverse=True)[1]
    effect = design_effect(answer_metrics(view)["accuracy"].influence, numbers)
    found = int(np.count_nonzero(clusters.share))
    return {"n_questions": n_questions, "n_clusters": found, "design_effect": effect if math.isfinite(effect) else None}
