"""`analyze compare`: every compressed run beside its dense run on the same items and splits, with tests and a verdict."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from analyzer.compare.change_tests import accuracy_p, set_size_p
from analyzer.compare.paired import CHANGED, ITEM_CHANGES, Paired, paired
from analyzer.compare.two_axis_verdict import Tolerances, borne_out, verdict
from analyzer.measure.question import Question
from analyzer.measure.records import Record, cell_record, mean_over, unreliable
from analyzer.runs.loading import Runs, reading_order
from analyzer.runs.pairs import Partners
from analyzer.stats.estimate import NOTHING, Estimate
from analyzer.stats.significance import detectable, holm
from schemas.fields import averaged_together

ALL_CHANGES = (*(f"{name}_change" for name in CHANGED), *ITEM_CHANGES)
TESTED = ("accuracy", "set_size")


def compare(
    runs: Runs,
    question: Question,
    *,
    partners: Partners | None = None,
    tolerances: Tolerances | None = None,
    average: bool = False,
) -> list[Record]:
    """Return one record per run, scorer and alpha; the changes of a run without a partner are null.

    partners : which run each is compared with; None means its own dense run.
    average  : return means over prompts and scorers instead, one record per model, method, level, task and alpha.
    Raises RunNotFoundError if no selected run has a partner, ComparisonError if two runs answered different questions.
    """
    groups = averaged(paired(runs, question, partners)) if average else ([cell] for cell in paired(runs, question, partners))
    found = [(reading_order(group[0].row), pair_record(group, question, tolerances or Tolerances())) for group in groups]
    return add_holm([record for _, record in sorted(found, key=itemgetter(0))])


def averaged(cells: Iterable[Paired]) -> Iterator[list[Paired]]:
    """Yield the cells of runs that differ in nothing but the wording of the prompt together, for one alpha: prompts and scorers."""

    def key(cell: Paired) -> tuple[Any, ...]:
        row = cell.row
        return row["model"], row["method"], row["level"], row["task"], row["items_hash"]

    for _, runs in groupby(cells, key=key):
        groups: dict[tuple[Any, ...], list[Paired]] = {}
        for cell in runs:
            groups.setdefault((*averaged_together(cell.row), cell.after.alpha), []).append(cell)
        yield from groups.values()


def pair_record(cells: Sequence[Paired], question: Question, tolerances: Tolerances) -> Record:
    """Return the record of one pair, or of the mean over several (prompts, scorers), with its tests and verdict."""
    changes = {name: mean_change(cells, name) for name in ALL_CHANGES}
    record = cell_record([cell.after for cell in cells], question, changes)
    record["compared_with"] = "+".join(dict.fromkeys(cell.before.view.row["name"] for cell in cells if cell.before)) or None
    record["accuracy_p"] = _finite(accuracy_p(cells, changes["accuracy_change"]))
    record["set_size_p"] = _finite(set_size_p(cells, changes["set_size_change"], question))
    for name in TESTED:
        record[f"{name}_detectable"] = _finite(detectable(changes[f"{name}_change"]))
    record["verdict"] = verdict(changes["accuracy_change"], changes["set_size_change"], tolerances) if record["compared_with"] else None
    record["unreliable"] = pair_unreliable(cells)
    return record


def mean_change(cells: Sequence[Paired], name: str) -> Estimate:
    """Return the mean of one change over cells of the same items; NOTHING if one of them has no such change."""
    found = [cell.changes.get(name, NOTHING) for cell in cells]
    return mean_over([cell.after for cell in cells], found) if all(estimate.influence.size for estimate in found) else NOTHING


def pair_unreliable(cells: Sequence[Paired]) -> str | None:
    """Return every reason not to trust a comparison: those of the compressed runs and those of their dense runs."""
    before = unreliable(cell.before for cell in cells if cell.before)
    reasons = [unreliable(cell.after for cell in cells), before and f"compared with an unreliable run: {before}"]
    return "; ".join(filter(None, reasons)) or None


def add_holm(records: list[Record]) -> list[Record]:
    """Add p-values corrected over the whole table, both axes together, and withdraw verdicts of a change that they do not support.

    A pair's accuracy is tested once, whatever its scorers and alphas.
    """
    tests = {_test(record, name): record[f"{name}_p"] for record in records for name in TESTED if record[f"{name}_p"] is not None}
    adjusted = holm(tests)
    for record in records:
        for name in TESTED:
            record[f"{name}_p_holm"] = adjusted.get(_test(record, name))
        if record["verdict"]:
            record["verdict"] = borne_out(record["verdict"], record["accuracy_p_holm"], record["set_size_p_holm"])
    return records


def _test(record: Record, name: str) -> tuple[Any, ...]:
    pair = record["run"], record["compared_with"]
    return (name, *pair) if name == "accuracy" else (name, *pair, record["scorer"], record["alpha"])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
