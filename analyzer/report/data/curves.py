"""Set size and coverage at every alpha of a grid, with their spread over splits: the slider of the page computes nothing."""

from fractions import Fraction
from functools import lru_cache
from typing import Any

from analyzer.conformal.ranks import threshold_rank
from analyzer.conformal.split_law import RankLaw, Statistics, moments, rank_law
from analyzer.measure.question import Question
from analyzer.measure.records import Record
from analyzer.measure.scored import score_run
from analyzer.report.data.study import Study
from analyzer.runs.view import RunView

GRID = tuple(Fraction(percent, 100) for percent in range(1, 100))
SHOWN = ("coverage", "set_size")


def curves(study: Study) -> list[Record]:
    """Return one record per run and scorer: four lists over the grid, by the exact split law."""
    question = study.asked.exact
    if question is None:
        return []
    views = [study.runs.view(row) for row in study.runs.rows]
    return [_curve(view, scorer, question) for view in views if view.n_items > 1 for scorer in question.scorers]


def _curve(view: RunView, scorer: str, question: Question) -> Record:
    scored = score_run(view, view.probs, scorer, question, None)
    shown = _only_shown(scored.statistics)
    n = scored.n_calibration
    found = [moments(_law(view.n_items, n, threshold_rank(n, alpha)), shown) for alpha in GRID]
    record: dict[str, Any] = {"run": view.row["name"], "scorer": scorer, "protocol": question.protocol}
    for place, name in enumerate(SHOWN):
        record[name] = [float(at.mean[place]) for at in found]
        record[f"{name}_sd"] = [float(at.sd[place]) for at in found]
    return record


def _only_shown(known: Statistics) -> Statistics:
    """The same statistics without those that the slider does not show; half the work."""
    places = [known.names.index(name) for name in SHOWN]
    return Statistics(
        known.table,
        SHOWN,
        tuple(known.share[place] for place in places),
        known.start[places],
        known.steps[places],
        known.square_start[places],
        known.square_steps[places],
    )


@lru_cache(maxsize=1024)
def _law(n_items: int, n_calibration: int, k: int) -> RankLaw:
    return rank_law(n_items, n_calibration, k)  # the same for every run over as many items
