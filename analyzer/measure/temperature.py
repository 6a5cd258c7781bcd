"""Prediction sets after temperature scaling: in every split, a temperature is fitted on the calibration items of that split only."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from analyzer.measure.cell import Cell
from analyzer.measure.question import Question
from analyzer.measure.scored import calibration_masks, measure_alpha, score_run
from analyzer.runs.view import RunView
from analyzer.stats.arrays import BoolArray, FloatArray
from analyzer.stats.combined import average
from analyzer.stats.probs import softmax
from schemas.options import own_options

COLDEST, HOTTEST, STEPS = 1e-3, 1e3, 60


def tempered_cells(view: RunView, scorer: str, question: Question) -> Iterator[Cell]:
    """Yield one cell per alpha: the mean over drawn splits, each with its own temperature, probs, scores and ranks."""
    masks = calibration_masks(view, question)
    if masks is None:
        raise ValueError("a temperature needs drawn splits")
    temperatures = [fit_temperature(view, mask) for mask in masks]
    splits = [score_run(view, tempered_probs(view, t), scorer, question, mask[None]) for t, mask in zip(temperatures, masks, strict=True)]
    for alpha in question.alphas:
        yield _mean_cell([measure_alpha(scored, alpha) for scored in splits], float(np.mean(temperatures)))


def _mean_cell(cells: list[Cell], temperature: float) -> Cell:
    first = cells[0]
    estimates = {name: average([one.estimates[name] for one in cells]) for name in first.estimates if first.estimates[name].influence.size}
    facts: dict[str, float | str] = {f"{name}_sd": _sd([one.estimates[name].value for one in cells]) for name in ("coverage", "set_size")}
    facts["threshold_ties"] = float(np.mean([float(one.facts["threshold_ties"]) for one in cells]))
    facts |= {name: first.facts[name] for name in ("set_size_note", "parameters")} | {"temperature": temperature}
    return replace(first, estimates={**first.estimates, **estimates}, facts=facts)


def _sd(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def tempered_probs(view: RunView, temperature: float) -> FloatArray:
    """Return (item, option) softmax of logits / temperature."""
    return softmax(view.logits.astype(np.float64) / temperature, view.n_options)


def fit_temperature(view: RunView, chosen: BoolArray) -> float:
    """Return the temperature in [0.001, 1000] with the smallest negative log-likelihood on the chosen items.

    The likelihood is concave in 1 / temperature, so its slope is bisected. Source: Guo et al. 2017, arXiv:1706.04599.
    """
    chosen_view = view.keep(chosen)
    option_mask = own_options(chosen_view.n_options, chosen_view.logits.shape[1])
    logits = np.where(option_mask, chosen_view.logits, 0.0).astype(np.float64)
    of_answer = float(logits[np.arange(chosen_view.n_items), chosen_view.answer].sum())
    low, high = np.log(1 / HOTTEST), np.log(1 / COLDEST)
    for _ in range(STEPS):
        middle = (low + high) / 2
        expected = float(np.nansum(softmax(chosen_view.logits.astype(np.float64) * np.exp(middle), chosen_view.n_options) * logits))
        low, high = (middle, high) if of_answer > expected else (low, middle)
    return float(np.exp(-(low + high) / 2))
