"""`analyze sets --reference FILE`: stated figures beside those measured from the same logits by the same rules, to the last stated digit.

`published_figures` is for articles on other items, with which only intervals can be compared.
"""

from collections.abc import Sequence
from typing import Any

from analyzer.measure.records import Record, same_fields
from analyzer.studies.published_figures import plain_name, same_level
from analyzer.studies.reference_file import NAMES, Reference, StatedRow
from schemas.benchmark import BENCHMARK
from schemas.levels import NO_LEVEL
from schemas.run import DENSE

AGREES, DIFFERS, NO_RUN, SEVERAL = "agrees", "differs", "no run", "several runs"
UNLIKE = {
    DIFFERS: "Rows with other figures here",
    NO_RUN: "Rows without a run here",
    SEVERAL: "Rows that fit several runs, so that columns such as method, level and prompt must say which",
}
SUMMATION = 1e-12  # rounding of float64 sums, which is not the same in every library
MOST_NAMED = 5


def beside_reference(records: Sequence[Record], reference: Reference) -> list[Record]:
    """Return one record per row of the file: each stated figure, the measured one and measured minus stated.

    records : those of `sets`.
    `agreement` is "agrees" if every figure of the row is measured up to half a unit of the last digit that its column states, else
    "differs", and `differs_in` names the figures; "no run" if no record is about what the row names, "several runs" if more than one is.
    """
    return same_fields([_record(row, meant) for row, meant in zip(reference.rows, _meant(reference.rows, records), strict=True)])


def summary(compared: Sequence[Record], reference: Reference, records: Sequence[Record]) -> list[str]:
    """Return sentences on how many rows agree, which ones do not, and what was not compared."""
    n_agreeing = sum(record["agreement"] == AGREES for record in compared)
    sentences = [f"{n_agreeing:,} of {len(compared):,} rows of {reference.path} agree to the last stated digit."]
    for agreement, words in UNLIKE.items():
        if rows := [_in_words(record) for record in compared if record["agreement"] == agreement]:
            every = " (--format csv prints every row)" if len(rows) > MOST_NAMED else ""
            sentences.append(f"{words} ({len(rows):,}): {_listed(rows, '; ')}{every}.")
    stated = {id(record) for meant in _meant(reference.rows, records) for record in meant}
    if len(stated) < len(records):
        sentences.append(f"{len(records) - len(stated):,} of {len(records):,} measured results are not in the file.")
    if reference.unread:
        sentences.append(f"Columns that are not compared: {_listed(reference.unread, ', ')}.")
    return sentences


def _meant(rows: Sequence[StatedRow], records: Sequence[Record]) -> list[list[Record]]:
    """Return for every row the records that it can mean; of models with the same plain name, those with the very name of the row."""
    indexes: dict[tuple[str, ...], dict[tuple[Any, ...], list[Record]]] = {}
    meant = []
    for row in rows:
        names, level = row.names, row.names.get("level", "")
        fields = tuple(name for name in ("prompt", "scorer", "alpha") if name in names)
        if fields not in indexes:
            indexes[fields] = _index(records, fields)
        stated = [float(names[name]) if name == "alpha" else names[name] for name in fields]
        key = plain_name(names["model"]), _task(names["task"]), names.get("method", DENSE), names.get("group", "all"), *stated
        fitting = [record for record in indexes[fields].get(key, []) if not level or same_level(level, record["level"])]
        meant.append([record for record in fitting if record["model"] == names["model"]] or fitting)
    return meant


def _index(records: Sequence[Record], fields: Sequence[str]) -> dict[tuple[Any, ...], list[Record]]:
    index: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        key = plain_name(record["model"]), record["task"], record["method"], record["group"], *(record[name] for name in fields)
        index.setdefault(key, []).append(record)
    return index


def _task(name: str) -> str:
    """Our name of a task that is called by one of the file names of the published benchmark, such as mmlu_10k."""
    return next((task for task, benchmark in BENCHMARK.items() if f"{name}.json" in benchmark.files), name)


def _record(row: StatedRow, meant: Sequence[Record]) -> Record:
    measured = meant[0] if len(meant) == 1 else None
    record: Record = {name: measured[name] if measured else row.names.get(name) for name in NAMES}
    if measured is None:
        record |= {"method": row.names.get("method", DENSE), "level": row.names.get("level", NO_LEVEL)}
        record |= {"task": _task(row.names["task"]), "alpha": float(row.names["alpha"]) if "alpha" in row.names else None}
    record["line"] = row.line
    differs_in = []
    for name, stated in row.figures.items():
        value = measured[name] if measured else None
        difference = None if value is None else value - stated.value
        record |= {f"{name}_stated": stated.value, name: value, f"{name}_difference": difference}
        if difference is None or abs(difference) > stated.half_unit + SUMMATION:
            differs_in.append(name)
    agreement = (DIFFERS if differs_in else AGREES) if measured else SEVERAL if meant else NO_RUN
    record |= {"agreement": agreement, "differs_in": ", ".join(differs_in) if measured and differs_in else None}
    last = ("unreliable", "protocol", "split", "run", "snapshot")
    return record | (dict.fromkeys(last) if measured is None else {name: measured[name] for name in last})


def _in_words(record: Record) -> str:
    """Name a row, and how far its figures are from those measured."""
    named = ", ".join(str(record[name]) for name in ("model", "method", "level", "task", "prompt", "scorer", "alpha") if record[name])
    figures = [
        f"{name} stated {record[f'{name}_stated']:.6g}, here "
        + ("unknown" if record[name] is None else f"{record[name]:.6g} ({record[f'{name}_difference']:+.2g})")
        for name in (record["differs_in"] or "").split(", ")
        if name
    ]
    return f"line {record['line']}, {named}{': ' if figures else ''}{', '.join(figures)}"


def _listed(texts: Sequence[str], separator: str) -> str:
    more = f"{separator}and {len(texts) - MOST_NAMED:,} more" if len(texts) > MOST_NAMED else ""
    return separator.join(texts[:MOST_NAMED]) + more
