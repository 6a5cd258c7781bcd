"""The Python API: one function per command of `analyze`, a store or xarray data sets in, a polars frame out."""

from analyzer.api.functions import Source, compare, p_values, sensitivity, sets, view_of
from analyzer.api.verdicts import cliffs, cost, decoupling, gate, scale, transfer
from analyzer.protocols.ask import ask

__all__ = [
    "Source", "ask", "cliffs", "compare", "cost", "decoupling", "gate", "p_values", "scale", "sensitivity", "sets", "transfer", "view_of",
]  # fmt: skip
