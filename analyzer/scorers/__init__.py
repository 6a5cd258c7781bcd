"""Nonconformity scores: `scorer(probs, u=None) -> scores`, both (item, option); a larger score means a less plausible option.

probs : float64, sum to 1 over an item's own options, NaN in the other cells, where scores are NaN too.
u     : (item,) uniform draws in [0, 1), which only randomised scorers use.
A scorer scores all options; the score of the correct option is picked by index in `analyzer.conformal.ranks` only. Keyword-only arguments
are the scorer's parameters, which every result records.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from analyzer.scorers.aps import aps
from analyzer.scorers.aps_rand import aps_rand
from analyzer.scorers.lac import lac
from analyzer.scorers.margin import margin
from analyzer.scorers.raps import raps
from analyzer.scorers.saps import saps
from analyzer.scorers.topk import topk
from analyzer.stats.arrays import FloatArray
from schemas.errors import UsageError
from schemas.known_names import known

Scorer = Callable[..., FloatArray]

SCORERS: dict[str, Scorer] = {
    "lac": lac,
    "aps": aps,
    "aps-rand": aps_rand,
    "raps": raps,
    "saps": saps,
    "margin": margin,
    "topk": topk,
}
RANDOM = frozenset({"aps-rand"})  # these draw `u`: they would answer the same question with other sets, so a predictor takes none of them

PLUG_INS: dict[str, str] = {}  # by name: the package that a scorer of other people comes from; `load_plug_ins` fills it


@cache
def load_plug_ins() -> None:
    """Add the scorers of other people's packages to `SCORERS`. Raises PlugInError that names the package of a broken one.

    Whatever asks questions does so first; a predictor, which takes our scorers only, starts without the search for packages.
    """
    from schemas.plug_ins import add_plug_ins

    PLUG_INS.update(add_plug_ins("hedgemark.scorers", SCORERS, _problem))


def check_scorers(names: Iterable[str], functions: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names in order, without repeats. Raises UsageError that lists the known names for an unknown one.

    functions : names of scorers that are given as functions.
    """
    distinct = tuple(dict.fromkeys(names))
    for name in distinct:
        if name not in SCORERS and name not in functions:
            raise UsageError(f"unknown scorer {name!r}; {known(name, SCORERS)}")
    return distinct


def scorer_name(scorer: Scorer) -> str:
    """Return the name of a scorer that is given as a function. Raises UsageError if it has none, or that of another scorer."""
    name = getattr(scorer, "__name__", "<lambda>")
    if name in SCORERS and scorer is not SCORERS[name]:
        raise UsageError(f"a scorer called {name!r} exists; give your function another name")
    if not name.isidentifier():
        raise UsageError("a scorer that is given as a function needs a name, which every result shows; define it with def")
    if problem := _problem(name, scorer):
        raise UsageError(f"{name} is no scorer: {problem}")
    return name


def scorer_parameters(name: str, changed: Mapping[str, float], scorer: Scorer | None = None) -> dict[str, float]:
    """Return all parameters of a scorer, changed from their defaults. Raises UsageError for an unknown one or a value below 0.

    scorer : the function, for one that is not in `SCORERS`.
    """
    defaults = _defaults(scorer or SCORERS[name])
    for key, value in changed.items():
        if key not in defaults:
            raise UsageError(f"scorer {name} has no parameter {key!r}; it has: {', '.join(defaults) or 'none'}")
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(f"scorer {name}: {key} is {value}; expected a number of at least 0")
    return {**defaults, **changed}


@cache
def _defaults(scorer: Scorer) -> Mapping[str, float]:
    keywords = inspect.signature(scorer).parameters.values()
    return {p.name: float(p.default) for p in keywords if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _problem(name: str, loaded: Any) -> str:
    if not callable(loaded):
        return f"it is a {type(loaded).__name__}, not a function"
    try:
        _defaults(loaded)
    except (TypeError, ValueError):
        return "its keyword-only arguments need numbers as defaults, since they are the scorer's parameters"
    return ""
