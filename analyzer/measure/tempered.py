"""Prediction sets after probability calibration: in every split the temperature is fitted on that split's calibration items alone."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from analyzer.measure.cell import FACTS, Measured
from analyzer.measure.question import Question
from analyzer.measure.scored import cell, score_run
from analyzer.measure.temperature import fit_temperature, tempered_probs
from analyzer.runs.view import RunView
from analyzer.stats.arrays import BoolArray
from analyzer.stats.estimate import average


def tempered_cells(view: RunView, scorer: str, question: Question, masks: BoolArray | None) -> Iterator[Measured]:
    """Yield one cell per alpha: the mean over splits, each with probs, scores and ranks of its own. masks : (split, item)."""
    if masks is None:
        raise ValueError("a temperature needs drawn splits")
    temperatures = [fit_temperature(view, mask) for mask in masks]
    splits = [score_run(view, tempered_probs(view, t), scorer, question, mask[None]) for t, mask in zip(temperatures, masks, strict=True)]
    for place in range(len(question.alphas)):
        yield _mean_cell([cell(scored, place) for scored in splits], float(np.mean(temperatures)))


def _mean_cell(cells: list[Measured], temperature: float) -> Measured:
    first = cells[0]
    estimates = {name: average([one.estimates[name] for one in cells]) for name in first.estimates if first.estimates[name].influence.size}
    spread = {f"{name}_sd": _sd([one.estimates[name].value for one in cells]) for name in ("coverage", "set_size")}
    facts: dict[str, float | str] = {name: first.facts[name] for name in FACTS} | spread | {"temperature": temperature}
    return replace(first, estimates={**first.estimates, **estimates}, facts=facts)


def _sd(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
