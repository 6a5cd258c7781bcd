"""Data for the page's alpha slider and cost calculator, which work without the store.

A cost is a sum of prices times rates, so its interval follows from the rates' covariance: for the prices that are typed in, the
calculator shows what `analyze cost` prints for the same prices.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from analyzer.compare.compare import pair_unreliable
from analyzer.compare.paired import Paired
from analyzer.conformal.ranks import threshold_rank
from analyzer.conformal.split_law import SetStatistics, rank_law, set_statistics
from analyzer.conformal.split_moments import all_moments
from analyzer.conformal.splits import calibration_size
from analyzer.measure.cell import Cell
from analyzer.measure.question import Question
from analyzer.measure.records import Record
from analyzer.measure.scored import ranks_of
from analyzer.report.data.study import Study
from analyzer.runs.view import RunView
from analyzer.stats.combined import covariances, difference
from analyzer.stats.estimate import Estimate, student
from analyzer.studies.cost import Prices, operations
from schemas.levels import NO_LEVEL
from schemas.run import DENSE

GRID = tuple(Fraction(percent, 100) for percent in range(1, 100))
SHOWN = ("coverage", "set_size")


def curves(study: Study) -> list[Record]:
    """Return one record per run and scorer: coverage, set size and their sd over splits, each a list over GRID, by the exact split law."""
    question = study.request.exact
    if question is None:
        return []
    views = [study.runs.view(row) for row in study.runs.rows]
    return [_curve(view, scorer, question) for view in views if view.n_items > 1 for scorer in question.scorers]


def cost_rates(study: Study) -> list[Record]:
    """Return one record per run and scorer, from which the cost at any prices and its interval can be computed.

    rates      : shares of questions with a set of 0, 1, .. K options, then the share with one option that is wrong.
    covariance : covariance matrix of the rates over items, upper triangle, row by row.
    change, change_covariance : the same for the change from the dense run; null without a dense run.
    t          : Student's quantile by which a standard error is multiplied to give the interval.
    """
    question = study.request.exact
    if question is None:
        return []
    dense: dict[int, list[Estimate]] = {}  # by cell; nine runs may be compared with one dense run
    for cell in study.exact_pairs:
        if cell.before and id(cell.before) not in dense and cell.after.view.n_items > 1:
            dense[id(cell.before)] = _rates(cell.before, question)
    cells = [cell for cell in study.exact_cells if cell.after.view.n_items > 1]
    return [_rates_record(cell, dense.get(id(cell.before)), question, study.request.prices) for cell in cells]


def _curve(view: RunView, scorer: str, question: Question) -> Record:
    shown = _only_shown(set_statistics(ranks_of(view, scorer, question)))
    n_calibration = calibration_size(view.n_items, question.calibration_fraction)
    laws = [rank_law(view.n_items, n_calibration, threshold_rank(n_calibration, alpha)) for alpha in GRID]
    at_alphas = all_moments(laws, shown)
    record: dict[str, Any] = {"run": view.row["name"], "scorer": scorer, "protocol": question.protocol}
    for index, name in enumerate(SHOWN):
        record[name], record[f"{name}_sd"] = at_alphas.mean[:, index].tolist(), at_alphas.sd[:, index].tolist()
    return record


def _only_shown(statistics: SetStatistics) -> SetStatistics:
    """Only the statistics that the slider shows, which halves the work."""
    chosen = [statistics.names.index(name) for name in SHOWN]
    return SetStatistics(
        statistics.table,
        SHOWN,
        tuple(statistics.share[index] for index in chosen),
        statistics.start[chosen],
        statistics.steps[chosen],
        statistics.square_start[chosen],
        statistics.square_steps[chosen],
    )


def _rates_record(cell: Paired, before: list[Estimate] | None, question: Question, prices: Prices) -> Record:
    """The record of one cell; before is the rates of the dense run, None without one."""
    after = _rates(cell.after, question)
    record: dict[str, Any] = {"run": cell.row["name"], "scorer": cell.after.scorer, "protocol": question.protocol}
    record |= {"n_items": cell.after.view.n_items, "t": student(after[0].freedom)}
    record |= {"rates": [rate.value for rate in after], "covariance": _covariance(after)}
    change = [difference(*both) for both in zip(after, before, strict=True)] if before else None
    record |= {"change": [rate.value for rate in change] if change else None}
    record |= {"change_covariance": _covariance(change) if change else None}
    saving = prices.hardware_of(DENSE, NO_LEVEL) - prices.hardware_of(cell.row["method"], cell.row["level"])
    return record | {"saving": None if math.isnan(saving) else saving, "unreliable": pair_unreliable([cell])}


def _rates(cell: Cell, question: Question) -> list[Estimate]:
    wrong = operations(cell.view, cell.scorer, cell.alpha, replace(question, sizes=False), Prices(wrong=1.0))["alone_wrong"]
    return [*size_rates(cell), wrong]


def size_rates(cell: Cell) -> list[Estimate]:
    """Return the shares of questions with a set of 0, 1, .. K options; [] if the cell was measured without set sizes."""
    names = [f"size_{size}_rate" for size in range(cell.view.logits.shape[1] + 1)]
    return [cell.estimates[name] for name in names if name in cell.estimates]


def _covariance(estimates: Sequence[Estimate]) -> list[float]:
    matrix = covariances(estimates)
    return [float(value) for value in matrix[np.triu_indices(len(matrix))]]
