"""The Python API of the verdicts: the commands' names, a store's address or xarray data sets in, a polars frame out.

    from analyzer.api import gate
    gate("hedgemark-store", {"accuracy_loss": 0.02, "set_size_growth": 0.1}, method=["gptq"], scorers=["lac"])

What may be asked beside each function's own arguments is that of `analyzer.api.functions.ask`, and model, method, level, task and prompt.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from analyzer.api.functions import Source, ask, runs_of
from analyzer.compare.two_axis_verdict import Tolerances
from analyzer.measure.records import frame
from analyzer.studies.prices import Prices


def decoupling(source: Source, *, at: str | None = None, tolerances: Tolerances | None = None, **asked: Any) -> pl.DataFrame:
    """Return how changes in accuracy and in set size go together, one row per group of pairs."""
    from analyzer.compare.compare import compare
    from analyzer.studies.decoupling import decoupling as of_records

    return frame(of_records(compare(runs_of(source, at, asked, with_dense=True), ask(**asked), tolerances=tolerances)))


def transfer(source: Source, kept_from: str = "dense", *, at: str | None = None, **asked: Any) -> pl.DataFrame:
    """Return what a kept threshold gives beside recalibrating; kept_from is dense, prompt, task or subject."""
    from analyzer.studies.threshold_transfer import transfer as of_runs

    return frame(of_runs(runs_of(source, at, asked, with_dense=kept_from == "dense"), ask(**asked), kept_from))


def scale(source: Source, *, at: str | None = None, **asked: Any) -> pl.DataFrame:
    """Return inflation of the sets against the size of the model."""
    from analyzer.studies.scale import scale as of_runs

    return frame(of_runs(runs_of(source, at, asked, with_dense=True), ask(**asked)))


def cliffs(source: Source, *, at: str | None = None, tolerances: Tolerances | None = None, **asked: Any) -> pl.DataFrame:
    """Return one row per level of every sweep, with its safe level and the shape of its growth."""
    from analyzer.studies.cliffs import cliffs as of_runs

    return frame(of_runs(runs_of(source, at, asked, with_dense=True), ask(**asked), tolerances=tolerances))


def cost(source: Source, prices: Prices, *, at: str | None = None, **asked: Any) -> pl.DataFrame:
    """Return what the sets cost in operations per 1,000 questions."""
    from analyzer.studies.cost import cost as of_runs

    return frame(of_runs(runs_of(source, at, asked, with_dense=True), ask(**asked), prices))


def gate(source: Source, limits: Mapping[str, float], *, at: str | None = None, **asked: Any) -> pl.DataFrame:
    """Return one row per check; limits by figure, a task's or the worst subject's own as in `analyze gate --limit`."""
    from analyzer.gate.gate import gate as of_runs
    from analyzer.gate.policy import read_policy

    policy = read_policy(None, [f"{name}={value}" for name, value in limits.items()])
    return frame(of_runs(runs_of(source, at, asked, with_dense=True), ask(**asked), policy))
