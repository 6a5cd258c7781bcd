"""The Python API: one function per command of `analyze`, a store or xarray data sets in, a polars frame out.

    from analyzer.api import sets
    sets("hedgemark-store", task="urn", alphas=[0.05, 0.1], scorers="lac")

An option of a command is an argument of the same name; `example_runs` makes data sets to try the functions on.
"""

from analyzer.api.examples import example_runs
from analyzer.api.functions import Source, beside_published, compare, p_values, sensitivity, sets, view_of
from analyzer.api.shipping import calibrate, monitor, predict
from analyzer.api.verdicts import cliffs, cost, decoupling, gate, scale, transfer, weighted
from analyzer.protocols.ask import ask

__all__ = [
    "Source",
    "ask",
    "beside_published",
    "calibrate",
    "cliffs",
    "compare",
    "cost",
    "decoupling",
    "example_runs",
    "gate",
    "monitor",
    "p_values",
    "predict",
    "scale",
    "sensitivity",
    "sets",
    "transfer",
    "view_of",
    "weighted",
]
