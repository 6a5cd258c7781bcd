"""`analyze scale`: do the sets of larger models grow less under compression?

Inflation is the relative growth of the mean set, compressed over dense minus one. Its slope per tenfold parameters is the median of
the slopes between all pairs of sizes (Theil 1950, Sen 1968), which one unusual model cannot turn.

A family is a model's name without its size: `llama2-7b` and `llama2-70b` are `llama2`; of a name without a number, a last part that is
a size in words (`ref-s`, `ref-m`) is left out.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from analyzer.compare.compare import averaged, pair_unreliable
from analyzer.compare.paired import Paired, compressed_pairs
from analyzer.measure.question import Question
from analyzer.measure.records import Record, identity, interval_fields, on_whole_set, provenance
from analyzer.runs.answer_metrics import dependence
from analyzer.runs.loading import Runs, level_strength
from analyzer.runs.pairs import Partners
from analyzer.stats.arrays import FloatArray
from analyzer.stats.combined import average
from analyzer.stats.estimate import LEVEL, NOTHING, Estimate
from analyzer.studies.cliffs import covariance

MIN_SIZES, MIN_FOR_FAMILY = 3, 5
N_DRAWS, SEED = 2_000, 0
MAGNITUDES = {"k": 1e3, "m": 1e6, "b": 1e9}
SIZE_IN_NAME = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([kmb])(?![a-z0-9])", re.IGNORECASE)
SIZE_IN_WORDS = re.compile(r"[-_ ](?:xxs|xs|s|m|l|xl|xxl|tiny|mini|small|medium|base|large)$", re.IGNORECASE)
RECORDED, NAMED = "recorded", "from the name"


class Size(NamedTuple):
    """Parameters of a dense model, and whether they are recorded with the run or read from its name; None if neither is possible."""

    parameters: float | None
    source: str | None


class Point(NamedTuple):
    """One model under one method, level, task and alpha: mean inflation over prompts and scorers."""

    cells: Sequence[Paired]
    size: Size
    inflation: Estimate


def scale(runs: Runs, question: Question, partners: Partners | None = None) -> list[Record]:
    """Return one record per family, method, level, task, alpha and model, each with the slope of its family.

    slope        : change of inflation for ten times the parameters; its interval is about exactly these models, over items.
    slope_family : interval for other models of the family (Sen's); null below five sizes.
    Raises RunNotFoundError if no selected run is compressed and has a dense run.
    """
    return scale_records(compressed_pairs(runs, question, partners), question)


def scale_records(cells: Iterable[Paired], question: Question) -> list[Record]:
    """Return the same records from cells that are already measured."""
    points = [_point(group) for group in averaged(cells)]
    return [record for group in _families(points) for record in _records(group, question)]


def model_size(row: Mapping[str, Any]) -> Size:
    """Return the size of a run's model, from its row of the catalog."""
    if row.get("parameters"):
        return Size(float(row["parameters"]), RECORDED)
    match = SIZE_IN_NAME.search(row["model"])
    return Size(float(match[1]) * MAGNITUDES[match[2].lower()], NAMED) if match else Size(None, None)


def family(model: str) -> str:
    """Return the family of a model: its name without its size."""
    stripped = SIZE_IN_WORDS.sub("", model) if not SIZE_IN_NAME.search(model) else SIZE_IN_NAME.sub("", model)
    return re.sub(r"[-_ ]{2,}", "-", stripped).strip("-_ ") or model


def inflation(cell: Paired) -> Estimate:
    """Return the relative growth of the mean set size, by the delta method; NOTHING if the dense run's sets are empty."""
    assert cell.before is not None
    before, after = cell.before.estimates["set_size"], cell.after.estimates["set_size"]
    if not before.value > 0:
        return NOTHING
    ratio = after.value / before.value
    influence = (after.influence - ratio * before.influence) / before.value
    items, unseen = min(after.items, before.items), 1 / (min(after.units, before.units) * before.value)
    return Estimate(ratio - 1, influence, unseen=unseen, items=items, least=-1.0, clusters=after.clusters)


def slope(x: FloatArray, y: FloatArray) -> float:
    """Return the median of the slopes between all pairs of points of different x."""
    return float(_slopes(x, y[None])[0])


def _slopes(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return (draw,) the slope of each row of y (draw, point)."""
    first, second = np.triu_indices(x.size, 1)
    apart = x[second] != x[first]
    first, second = first[apart], second[apart]
    if not first.size:
        return np.full(len(y), math.nan)
    return np.asarray(np.median((y[:, second] - y[:, first]) / (x[second] - x[first]), axis=1))


def _point(cells: list[Paired]) -> Point:
    inflations = [on_whole_set(inflation(cell), cell.after) for cell in cells]
    mean = average(inflations) if all(estimate.influence.size for estimate in inflations) else NOTHING
    return Point(cells, model_size(cells[0].row), mean)


def _families(points: Iterable[Point]) -> list[list[Point]]:
    def key(point: Point) -> tuple[Any, ...]:
        row = point.cells[0].row
        sweep_point = row["method"], level_strength(row["level"]), row["level"], row["task"], row["items_hash"], point.cells[0].after.alpha
        return family(row["model"]), *sweep_point

    ordered = sorted(points, key=lambda point: (key(point), point.size.parameters or math.inf, point.cells[0].row["model"]))
    return [list(group) for _, group in groupby(ordered, key=key)]


def _records(points: list[Point], question: Question) -> list[Record]:
    broken = [pair_unreliable(point.cells) for point in points]
    used = [p for p, reason in zip(points, broken, strict=True) if p.size.parameters and not reason and p.inflation.influence.size]
    shows = _slope_fields(used) | {"note": _note(points, used)}
    return [
        _point_fields(point) | shows | dependence(point.cells[0].after.view) | {"unreliable": reason} | _made_from(point, question)
        for point, reason in zip(points, broken, strict=True)
    ]


def _made_from(point: Point, question: Question) -> Record:
    return provenance([cell.after for cell in point.cells], question)


def _point_fields(point: Point) -> Record:
    cells = [cell.after for cell in point.cells]
    size = {"family": family(point.cells[0].row["model"]), "parameters": point.size.parameters, "parameters_source": point.size.source}
    return identity(cells) | size | interval_fields("inflation", point.inflation)


def _slope_fields(points: Sequence[Point]) -> Record:
    sizes = {point.size.parameters for point in points}
    names = ("slope", "slope_low", "slope_high", "slope_family_low", "slope_family_high")
    if len(sizes) < MIN_SIZES:
        return dict.fromkeys(names)
    x = np.log10([point.size.parameters or math.nan for point in points])
    y = np.array([point.inflation.value for point in points])
    noise = covariance([point.inflation for point in points])
    draws = np.random.default_rng(SEED).multivariate_normal(y, noise, N_DRAWS, method="cholesky")
    low, high = np.quantile(_slopes(x, draws), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    family_ends = _family_ends(x, y) if len(sizes) >= MIN_FOR_FAMILY else (None, None)
    return dict(zip(names, (slope(x, y), float(low), float(high), *family_ends), strict=True))


def _family_ends(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    from scipy.stats import theilslopes  # takes a second to import, and few reports have so many sizes of one family

    outer = theilslopes(y, x, LEVEL)
    return float(outer.low_slope), float(outer.high_slope)


def _note(points: Sequence[Point], used: Sequence[Point]) -> str | None:
    n_sizes = len({point.size.parameters for point in used})
    left_out = len(points) - len(used)
    remarks = [
        f"{n_sizes} {'size' if n_sizes == 1 else 'sizes'}: too few for a slope, {MIN_SIZES} are needed" if n_sizes < MIN_SIZES else None,
        f"{n_sizes} sizes: the slope holds for these models, {MIN_FOR_FAMILY} are needed for others of the family"
        if MIN_SIZES <= n_sizes < MIN_FOR_FAMILY
        else None,
        f"{left_out} of {len(points)} models left out: unreliable, or of unknown size" if left_out else None,
        "parameters are read off the name of a model" if any(point.size.source == NAMED for point in used) else None,
    ]
    return "; ".join(filter(None, remarks)) or None
