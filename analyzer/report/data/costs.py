"""What the cost calculator needs to price any run without the store: rates of every set size, and how they vary together.

A cost is a sum of prices times rates, so its interval follows from the rates' covariance; the calculator then shows, for the prices
that are typed in, what `analyze cost` prints for the same prices.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from analyzer.compare.compare import pair_unreliable
from analyzer.compare.paired import Paired
from analyzer.measure.cell import Cell
from analyzer.measure.question import Question
from analyzer.measure.records import Record
from analyzer.report.data.study import Study
from analyzer.stats.estimate import Estimate, difference, student
from analyzer.studies.cost import Prices, operations


def rates(study: Study) -> list[Record]:
    """Return one record per run and scorer: `rates`, `change` against the dense run, and the covariance of both.

    rates      : shares of questions with a set of 0, 1, .. K options, then the share with one wrong option.
    covariance : upper triangle, row by row, over items; `change_covariance` that of the change.
    """
    question = study.asked.exact
    if question is None:
        return []
    return [_record(cell, question, study.asked.prices) for cell in study.exact_cells if cell.after.view.n_items > 1]


def _record(cell: Paired, question: Question, prices: Prices) -> Record:
    after = _rates(cell.after, question)
    before = _rates(cell.before, question) if cell.before else None
    record: dict[str, Any] = {"run": cell.row["name"], "scorer": cell.after.scorer, "protocol": question.protocol}
    record |= {"n_items": cell.after.view.n_items, "t": student(cell.after.view.n_items - 1)}
    record |= {"rates": [rate.value for rate in after], "covariance": _covariance(after)}
    change = [difference(*both) for both in zip(after, before, strict=True)] if before else None
    record |= {"change": [rate.value for rate in change] if change else None}
    record |= {"change_covariance": _covariance(change) if change else None}
    saving = prices.hardware_of("dense", "-") - prices.hardware_of(cell.row["method"], cell.row["level"])
    return record | {"saving": None if math.isnan(saving) else saving, "unreliable": pair_unreliable([cell])}


def _rates(cell: Cell, question: Question) -> list[Estimate]:
    sizes = [name for name in cell.estimates if name.startswith("size_")]
    asked = replace(question, sizes=False)
    wrong = operations(cell.view, cell.scorer, cell.alpha, asked, Prices(wrong=1.0))["alone_wrong"]
    return [*(cell.estimates[f"size_{size}_rate"] for size in range(len(sizes))), wrong]


def _covariance(estimates: Sequence[Estimate]) -> list[float]:
    influence = np.stack([estimate.influence for estimate in estimates])
    n_items = influence.shape[1]
    whole = influence @ influence.T / (n_items * (n_items - 1))
    return [float(value) for value in whole[np.triu_indices(len(whole))]]
