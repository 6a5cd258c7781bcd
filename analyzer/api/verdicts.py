"""The commands that end in a verdict as functions; source, at and options are those of `analyzer.api.sets`."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from analyzer.api.functions import Source, open_asked
from analyzer.compare.two_axis_verdict import Tolerances
from analyzer.measure.records import frame
from analyzer.studies.cost import Prices


def decoupling(source: Source, *, at: str | None = None, tolerances: Tolerances | None = None, **options: Any) -> pl.DataFrame:
    """Return how changes in accuracy and in set size go together, one row per group of pairs: `analyze compare --decoupling`."""
    from analyzer.compare.compare import compare
    from analyzer.studies.decoupling import decoupling as decoupling_of

    asked = open_asked(source, at, options, with_dense=True)
    return frame(decoupling_of(compare(asked.runs, asked.question, tolerances=tolerances)))


def transfer(source: Source, kept_from: str = "dense", *, at: str | None = None, **options: Any) -> pl.DataFrame:
    """Return what a reused threshold gives beside a new calibration: `analyze transfer`.

    kept_from : whose threshold is reused: "dense", "prompt", "task" or "subject".
    """
    from analyzer.studies.threshold_transfer import transfer as transfer_of

    asked = open_asked(source, at, options, with_dense=kept_from == "dense")
    return frame(transfer_of(asked.runs, asked.question, kept_from))


def scale(source: Source, *, at: str | None = None, **options: Any) -> pl.DataFrame:
    """Return the growth of the sets against the number of parameters, one row per family, method and level: `analyze scale`."""
    from analyzer.studies.scale import scale as scale_of

    asked = open_asked(source, at, options, with_dense=True)
    return frame(scale_of(asked.runs, asked.question))


def cliffs(source: Source, *, at: str | None = None, tolerances: Tolerances | None = None, **options: Any) -> pl.DataFrame:
    """Return one row per level of every sweep, with its safe level and the shape of its growth: `analyze cliffs`."""
    from analyzer.studies.cliffs import cliffs as cliffs_of

    asked = open_asked(source, at, options, with_dense=True)
    return frame(cliffs_of(asked.runs, asked.question, tolerances=tolerances))


def cost(source: Source, prices: Prices, *, at: str | None = None, **options: Any) -> pl.DataFrame:
    """Return what the sets cost in operations per 1,000 questions, at stated prices: `analyze cost`."""
    from analyzer.studies.cost import cost as cost_of

    asked = open_asked(source, at, options, with_dense=True)
    return frame(cost_of(asked.runs, asked.question, prices))


def gate(source: Source, limits: Mapping[str, float], *, at: str | None = None, **options: Any) -> pl.DataFrame:
    """Return one row per check of the release gate: `analyze gate`.

    limits : by figure, such as {"accuracy_loss": 0.02}; those of one task or of the worst subject as in `analyze gate --limit`.
    """
    from analyzer.gate.gate import gate as gate_of
    from analyzer.gate.policy import read_policy

    asked = open_asked(source, at, options, with_dense=True)
    return frame(gate_of(asked.runs, asked.question, read_policy(None, [f"{name}={value}" for name, value in limits.items()])))
