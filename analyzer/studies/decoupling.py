"""`analyze compare --decoupling`: do changes in accuracy and in set size go together, and how many pairs have which verdict?

Correlations are Spearman's over pairs, for all pairs and by kind of method, task and model, with the interval of Bonett & Wright 2000. All
pairs with one dense run share its error, so each is taken less their mean. Errors of accuracy and of set size come from the same items and
correlate without any change: there is no correlation unless both changes differ between pairs by more than their errors explain, and
the interval reaches as far as the errors alone could have moved it.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.special import chdtrc, ndtri

from analyzer.compare.two_axis_verdict import VERDICTS
from analyzer.measure.records import Record
from analyzer.stats.arrays import FloatArray
from analyzer.stats.estimate import LEVEL
from schemas.errors import UsageError
from schemas.levels import parse_level

UNKNOWN = math.nan, math.nan, math.nan
CHANGES = ("accuracy_change", "set_size_change")
MIN_PAIRS = 4  # the interval of a rank correlation needs n - 3 > 0
QUADRANTS = {name: "share_" + name.replace(", ", "_").replace(" ", "_") for name in VERDICTS}


def decoupling(records: Sequence[Record]) -> list[Record]:
    """Return one record per group of pairs, from the records of `compare`. Unreliable pairs are counted and otherwise left out."""
    pairs = [record for record in records if record["compared_with"]]
    return [_group(by, value, pairs, of) for by, of in GROUPINGS.items() for value in sorted({of(pair) for pair in pairs})]


def rank_correlation(x: Sequence[float], y: Sequence[float], lost: int = 0) -> tuple[float, float, float]:
    """Return Spearman's correlation with its 95 % interval; NaN where there are too few pairs or nothing varies.

    lost : how many pairs the means taken off x and y cost, beyond one.
    """
    if len(x) - lost < MIN_PAIRS or len(set(x)) < 2 or len(set(y)) < 2:
        return math.nan, math.nan, math.nan
    r = float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])
    if abs(r) >= 1 - 1e-12:
        return math.copysign(1.0, r), math.nan, math.nan
    half = float(ndtri((1 + LEVEL) / 2)) * math.sqrt((1 + r * r / 2) / (len(x) - lost - 3))
    return r, math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def _ranks(values: Sequence[float]) -> FloatArray:
    """Return the rank of each value, from 1; equal values share the mean of their ranks. Importing scipy.stats for it takes a second."""
    _, number, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((counts.cumsum() - (counts - 1) / 2)[number], dtype=np.float64)


def beyond_noise(pairs: Sequence[Record], name: str) -> bool:
    """Return whether a change differs between the pairs of one model by more than its own errors explain, at the 5 % level.

    Where it does not, what correlates is the errors: those of accuracy and of set size come from the same items. Source: Cochran 1954,
    Biometrics 10, the test of heterogeneity.
    """
    errors = _errors(pairs, name)
    if not pairs or not (errors > 0).all():
        return False
    apart = np.array(_within_models(pairs, name)) / errors
    freedom = len(pairs) - len(set(_dense_runs(pairs)))
    return freedom > 0 and float(chdtrc(freedom, float(apart @ apart))) <= 1 - LEVEL


def of_errors(pairs: Sequence[Record]) -> float:
    """Return the part of the correlation of both changes that their errors alone could make, in [-1, 1].

    It is the mean correlation of the errors times the shares of variance that are errors. How much of an error is the dense run's, which
    pairs share and their mean takes off, is unknown, so that the part lies between 0 and this. Source: Fuller 1987, Measurement Error
    Models, section 1.1.
    """
    shares = 1.0
    freedom = len(pairs) - len(set(_dense_runs(pairs)))
    for name in CHANGES:
        apart = np.array(_within_models(pairs, name))
        shares *= min(float(np.mean(_errors(pairs, name) ** 2)) * freedom / float(apart @ apart), 1.0)
    alike = [pair["error_correlation"] for pair in pairs if pair["error_correlation"] is not None]
    return float(np.mean(alike)) * math.sqrt(shares) if alike else 0.0


def _errors(pairs: Sequence[Record], name: str) -> FloatArray:
    """Standard errors, (pair,), from 95 % intervals; NaN without one."""
    ends = np.array([(pair[f"{name}_low"], pair[f"{name}_high"]) for pair in pairs], dtype=np.float64).reshape(-1, 2)
    return np.asarray((ends[:, 1] - ends[:, 0]) / (2 * float(ndtri((1 + LEVEL) / 2))))


def _within_models(pairs: Sequence[Record], name: str) -> list[float]:
    """Changes less the mean change of the pairs with the same dense run, whose own error all of them share."""
    values: dict[str, list[float]] = {}
    for dense, pair in zip(_dense_runs(pairs), pairs, strict=True):
        values.setdefault(dense, []).append(pair[name])
    return [pair[name] - sum(values[dense]) / len(values[dense]) for dense, pair in zip(_dense_runs(pairs), pairs, strict=True)]


def _dense_runs(pairs: Sequence[Record]) -> list[str]:
    """The dense run of each pair; one name for all where no two share one, as then no error is shared."""
    runs = [pair["compared_with"] for pair in pairs]
    return ["apart"] * len(runs) if len(set(runs)) == len(runs) else runs


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
    known = all(beyond_noise(used, name) for name in CHANGES)
    accuracy, size = (_within_models(used, name) for name in CHANGES)
    r, low, high = rank_correlation(accuracy, size, len(set(_dense_runs(used))) - 1) if known else UNKNOWN
    if known:
        moved = of_errors(used)
        low, high = max(low - max(moved, 0.0), -1.0), min(high - min(moved, 0.0), 1.0)
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
