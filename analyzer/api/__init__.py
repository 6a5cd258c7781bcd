"""The Python API: one function per command of `analyze`. It takes a store or xarray data sets and returns a polars frame::

    from analyzer.api import sets
    sets("hedgemark-store", task="urn", alphas=0.1, scorers="lac")

A scorer may be a function of yours, `scorers=my_scorer`, and `logits` gets the runs out of a store as a data set.

Every option of a command is an argument with the same name; `example_runs` makes data sets to try the functions on. Parameters that all
functions have:

source : address of a store, as text or path, or one or several data sets. A data set has `logits` (item, option), NaN for options that an
    item does not have, and `answer` (item,), the index of the correct option or its letter; optionally `item_id` (item,), whole numbers,
    `subject` (item,), names, and all else that `logits` returns; a dimension `run` holds several runs.
    Its attributes model, method, level, task and prompt name the run.
at : tag or snapshot id of the store; None is the newest snapshot.
options : which runs are selected (model, method, level, task, prompt: one name or several), and all arguments of `ask`, which say how
    they are analysed (alphas, scorers, split, protocol, ...). None chooses nothing.

All functions raise RunNotFoundError if no run matches, and UsageError for an unknown argument, a value that is not valid, or a data set
that lacks something.
"""

from analyzer.api.examples import example_runs
from analyzer.api.functions import beside_published, compare, p_values, sensitivity, sets
from analyzer.api.in_use import cost, guarantee, transfer, weighted
from analyzer.api.shipping import calibrate, monitor, predict
from analyzer.api.sources import Source, ask, logits, view_of
from analyzer.api.verdicts import cliffs, decoupling, frontier, gate, position, scale, text

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
    "frontier",
    "gate",
    "guarantee",
    "logits",
    "monitor",
    "p_values",
    "position",
    "predict",
    "scale",
    "sensitivity",
    "sets",
    "text",
    "transfer",
    "view_of",
    "weighted",
]
