"""Flat records in the glossary's terms, which all analysis commands print as JSON, CSV or Parquet and make their tables from."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from analyzer.measure.cell import ESTIMATED, MORE, Cell
from analyzer.measure.question import Question
from analyzer.measure.unreliable import cell_reasons, run_reasons
from analyzer.runs.answer_metrics import answer_metrics, dependence
from analyzer.runs.view import RunView, once_per_view
from analyzer.stats.clusters import clusters_of
from analyzer.stats.combined import average
from analyzer.stats.estimate import NOTHING, Estimate
from schemas.fields import FIELDS, averaged_together

Record = dict[str, Any]


def cell_record(cells: Sequence[Cell], question: Question, extra: Mapping[str, Estimate] | None = None) -> Record:
    """Return the record of one cell, or of the mean over several cells (prompts, scorers) of one model, method, level, task and alpha.

    extra : further estimates by name, such as changes against the dense run.
    """
    first = cells[0]
    record = identity(cells)
    as_measured = len(cells) == 1 and _has_answer_metrics(first)
    for name in (*ESTIMATED, *sorted(set(first.estimates) - {*ESTIMATED, *MORE}), *(() if as_measured else MORE)):
        record |= interval_fields(name, mean_over(cells, [cell.estimates[name] for cell in cells]))
    record |= _answer_fields(first.view) if as_measured else {}
    for name, estimate in (extra or {}).items():
        record |= interval_fields(name, estimate)
    facts = first.facts if len(cells) == 1 else {name: _mean_fact([cell.facts[name] for cell in cells]) for name in first.facts}
    record |= {name: _number(value) for name, value in facts.items()}
    if notes := [note for cell in cells if isinstance(note := cell.facts.get("set_size_note"), str)]:
        record["set_size_note"] = notes[0]  # runs that lack different items have different numbers in it
    return record | dependence(first.view) | {"unreliable": unreliable(cells)} | provenance(cells, question)


def identity(cells: Sequence[Cell]) -> Record:
    """Return the first fields of every record, which say what it is about."""
    first = cells[0]
    return {field: first.view.row[field] for field in FIELDS if field != "prompt"} | {
        "prompt": "+".join(dict.fromkeys(cell.view.row["prompt"] for cell in cells)),
        "scorer": "+".join(dict.fromkeys(cell.scorer for cell in cells)),
        "alpha": float(first.alpha),
        "n_items": first.view.n_items,
        "n_calibration": first.n_calibration,
    }


def provenance(cells: Sequence[Cell], question: Question) -> Record:
    """Return the last fields of every record, which say how and from which run it was computed."""
    return {
        "group": cells[0].group,
        "protocol": question.protocol,
        "split": question.split.text,
        "calibration_fraction": float(question.calibration_fraction),
        "empty": question.empty,
        "reliability": question.reliability,
        "mondrian": question.mondrian,
        "cluster": question.clustering.text,
        "noted": "; ".join(dict.fromkeys(note for cell in cells for note in cell.view.env.notes)) or None,
        "run": "+".join(dict.fromkeys(cell.view.row["name"] for cell in cells)),
        "snapshot": cells[0].view.snapshot,
    }


def mean_over(cells: Sequence[Cell], estimates: Sequence[Estimate]) -> Estimate:
    """Return the mean of one estimate per cell; the cells have the same item set, of which they may lack different items."""
    if len(cells) == 1:
        return estimates[0]
    if not all(estimate.influence.size for estimate in estimates):
        return NOTHING
    return average([on_whole_set(estimate, cell) for estimate, cell in zip(estimates, cells, strict=True)])


def on_whole_set(estimate: Estimate, cell: Cell) -> Estimate:
    """Return an estimate with influences over the run's whole item set, 0 for left-out items, so that runs can be averaged.

    A run that lacks the items that repeat others has no clusters of its own, but gets those of the item set, which the other runs have.
    """
    view = cell.view
    if not estimate.influence.size or view.n_items == len(view.items):
        return estimate
    influence = np.zeros(len(view.items))
    influence[view.position] = estimate.influence * (len(view.items) / view.n_items)
    if not view.set_has_clusters:
        return replace(estimate, influence=influence)
    if estimate.clusters:
        return replace(estimate, influence=influence, clusters=replace(estimate.clusters, code=view.cluster_of_set))
    viewed = np.isin(np.arange(len(view.items)), view.position)
    return replace(estimate, influence=influence, clusters=clusters_of(view.cluster_of_set, int(view.cluster_of_set.max()) + 1, viewed))


def interval_fields(name: str, estimate: Estimate) -> Record:
    """Return the fields `<name>`, `<name>_low` and `<name>_high`; a missing number is null."""
    low, high = estimate.interval()
    return {name: _number(estimate.value), f"{name}_low": _number(low), f"{name}_high": _number(high)}


def unreliable(cells: Iterable[Cell]) -> str | None:
    """Return all reasons not to trust a record, or None; for a mean over runs that differ in them, each with its runs."""
    named: dict[str, list[str]] = {}
    for cell in cells:
        reason = "; ".join([*run_reasons(cell.view), *cell_reasons(cell)])
        named.setdefault(reason, []).append(f"{cell.view.row['prompt']}/{cell.scorer}")
    broken = {reason: names for reason, names in named.items() if reason}
    if len(named) == 1:  # all have the same, which is said once
        return next(iter(broken), None)
    return "; ".join(f"includes {', '.join(names)}: {reason}" for reason, names in broken.items()) or None


def average_groups(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Return cells grouped for a mean over prompts and scorers: runs that differ in nothing else, one group per alpha."""
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((*averaged_together(cell.view.row), cell.alpha), []).append(cell)
    return list(groups.values())


def same_fields(records: Sequence[Record]) -> list[Record]:
    """Return records that all have the same fields, with null for missing ones; fields are in the order of their first appearance."""
    last = provenance_fields(records)
    kinds = dict.fromkeys(tuple(record) for record in records)
    names = tuple(dict.fromkeys([name for kind in kinds for name in kind if name not in last] + last))
    return [record if tuple(record) == names else {name: record.get(name) for name in names} for record in records]


def provenance_fields(records: Sequence[Record]) -> list[str]:
    """Return the fields from `unreliable` on, which are always the last ones."""
    names = list(records[0]) if records else []
    return names[names.index("unreliable") :] if names else []


def frame(records: Sequence[Record]) -> pl.DataFrame:
    """Return records as a polars frame, with the columns in the order of the fields."""
    return pl.DataFrame(list(records), infer_schema_length=None)


def _has_answer_metrics(cell: Cell) -> bool:
    metrics = answer_metrics(cell.view)
    return all(cell.estimates[name] is metrics[name] for name in MORE)


@once_per_view
def _answer_fields(view: RunView) -> Record:
    """The fields of the metrics that do not depend on scorer and alpha, of all items."""
    return {field: value for name in MORE for field, value in interval_fields(name, answer_metrics(view)[name]).items()}


def _mean_fact(values: Sequence[float | str]) -> float | str:
    """The fact if all cells agree on it, else NaN: a spread over splits cannot be averaged."""
    return values[0] if len(set(values)) == 1 else math.nan


def _number(value: float | str) -> float | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value
