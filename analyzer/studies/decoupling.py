"""`analyze compare --decoupling`: do changes in accuracy and in set size go together, and how many pairs have which verdict?

Correlations are Spearman's over pairs, for all pairs and by kind of method, task and model. The interval takes the pairs as independent
(Bonett & Wright 2000); pairs that share a dense run are not, so it is too narrow rather than too wide.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from analyzer.compare.two_axis_verdict import VERDICTS
from analyzer.measure.records import Record
from analyzer.stats.estimate import LEVEL
from schemas.errors import UsageError
from schemas.levels import parse_level

MIN_PAIRS = 4  # the interval of a rank correlation needs n - 3 > 0
QUADRANTS = {name: "share_" + name.replace(", ", "_").replace(" ", "_") for name in VERDICTS}


def decoupling(records: Sequence[Record]) -> list[Record]:
    """Return one record per group of pairs, from the records of `compare`. Unreliable pairs are counted and otherwise left out."""
    pairs = [record for record in records if record["compared_with"]]
    return [_group(by, value, pairs, of) for by, of in GROUPINGS.items() for value in sorted({of(pair) for pair in pairs})]


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Return Spearman's correlation with its 95 % interval; NaN if there are too few pairs or nothing varies."""
    if len(x) < MIN_PAIRS or len(set(x)) < 2 or len(set(y)) < 2:
        return math.nan, math.nan, math.nan
    r = float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
    if abs(r) >= 1 - 1e-12:
        return math.copysign(1.0, r), math.nan, math.nan
    half = float(ndtri((1 + LEVEL) / 2)) * math.sqrt((1 + r * r / 2) / (len(x) - 3))
    return r, math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def method_kind(record: Record) -> str:
    """Return the kind of compression by its level: quantization of weights only or of activations too, sparsity, n:m pattern."""
    try:
        level = parse_level(record["level"])
    except UsageError:
        return "other"
    if level.kind == "quantization":
        return "weight-only" if level.activation_bits == 16 else "weight and activation"
    return {"none": "other", "name": "other", "sparsity": "pruned", "pattern": "pruned n:m"}[level.kind]


GROUPINGS: dict[str, Callable[[Record], str]] = {
    "all": lambda record: "all",
    "kind": method_kind,
    "task": lambda record: str(record["task"]),
    "model": lambda record: str(record["model"]),
}


def _group(by: str, value: str, pairs: Sequence[Record], of: Callable[[Record], str]) -> Record:
    members = [pair for pair in pairs if of(pair) == value]
    used = [pair for pair in members if not pair["unreliable"] and pair["set_size_change"] is not None]
    r, low, high = rank_correlation([p["accuracy_change"] for p in used], [p["set_size_change"] for p in used])
    counts = Counter(pair["verdict"] for pair in used)
    shares = {name: counts[verdict] / len(used) if used else None for verdict, name in QUADRANTS.items()}
    return (
        {"by": by, "part": value, "n_pairs": len(used), "n_unreliable": len(members) - len(used)}
        | dict(_finite([("correlation", r), ("correlation_low", low), ("correlation_high", high)]))
        | shares
        | {"snapshot": pairs[0]["snapshot"], "unreliable": None}
    )


def _finite(values: Sequence[tuple[str, float]]) -> Iterator[tuple[str, float | None]]:
    return ((name, None if math.isnan(value) else value) for name, value in values)
