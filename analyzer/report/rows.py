"""The rows that panels show: all of them, packed by column, for the page; and those of the page when it opens, for charts in files.

In: a study and its tables.  Out: facts about each run, the rows that a panel shows, and deflated JSON with six digits.
"""

import base64
import json
import math
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from analyzer.measure.records import Record
from analyzer.report.data.study import Study
from analyzer.report.data.tables import Tables
from analyzer.report.panel import Panel
from analyzer.report.panels import ITEM_FIELDS, TEXT_FIELDS, panels_of
from analyzer.runs.loading import level_strength
from analyzer.runs.pairs import Partners
from analyzer.studies.cliffs import sweep_kind
from schemas.fields import FIELDS
from schemas.levels import method_and_level
from store.shown import TURNING, escaped_json

DIGITS = 6
ITEM_TABLES = {"items": ITEM_FIELDS, "texts": TEXT_FIELDS}  # the flipped items below their panel
KINDS = {"sparsity": "share", "pattern": "n:m"}  # all other levels are measured in bits

Columns = dict[str, list[Any]]


def run_facts(study: Study) -> list[Record]:
    """Return for each run, in reading order, its names and groups.

    run, dense : numbers of the run and of its dense run in this list; `dense` is None if it has none.
    base       : the model of its dense run; its own model if it has none.
    name       : method and level; for runs that would look the same, also the beginning of their digests.
    where      : task, and prompt if the runs have several prompts.
    column     : its column in the heat map.  label : its name in charts that list runs.
    kind       : unit of its level: share, n:m or bits; levels of one kind are on one axis.
    strength   : position on that axis; None for a name whose bits are not known.
    """
    rows, partners = study.runs.rows, Partners(study.runs.rows, study.request.against)
    number = {row["name"]: index for index, row in enumerate(rows)}
    shown = Counter(tuple(row[field] for field in FIELDS) for row in rows)
    many_prompts = len({row["prompt"] for row in rows}) > 1
    facts = []
    for row in rows:
        twin = shown[tuple(row[field] for field in FIELDS)] > 1
        name = method_and_level(row["method"], row["level"]) + (f" #{study.runs.view(row).key.digest[:8]}" if twin else "")
        where = f"{row['task']} · {row['prompt']}" if many_prompts else row["task"]
        partner, strength = partners.of(row), level_strength(row["level"])
        facts.append(
            {field: row[field] for field in FIELDS}
            | {"run": number[row["name"]], "dense": number[partner["name"]] if partner else None}
            | {"base": (partner or row)["model"]}
            | {"name": name, "where": where, "column": f"{row['model']} · {where}", "label": f"{row['model']} · {name} · {where}"}
            | {"kind": KINDS.get(sweep_kind(row["level"]) or "", "bits"), "strength": strength if math.isfinite(strength) else None}
        )
    return facts


def opening_rows(panel: Panel, records: Sequence[Record], facts: Sequence[Record], chosen: Record) -> list[Record]:
    """Return the rows of a panel when the page opens, before any filter is set; rows.js selects rows in the same way.

    records : records of the panel's table, in which `run` is the number of a run, where they are about runs.
    facts   : facts of every run.  chosen : facts of the run that panels about one run show.
    """
    if not panel.of_runs:
        return list(records)
    rows = [facts[record["run"]] | {field: record.get(field) for field in panel.fields} for record in records]
    rows = [row | {"role": _role(row, chosen)} for row in rows]
    rows = sorted(rows, key=panel.listed.place) if panel.listed else rows
    if panel.shows.pair:
        return [row for row in rows if row["role"] != "other"]
    return [row for row in rows if all(row[field] == chosen[field] for field in panel.shows.same)]


def numbered(study: Study, records: Sequence[Record]) -> list[Record]:
    """Return records with the number of each run in place of its name."""
    number = {row["name"]: index for index, row in enumerate(study.runs.rows)}
    return [record | {"run": number[record["run"]]} if "run" in record else record for record in records]


def pack(study: Study, named_tables: Tables) -> dict[str, Any]:
    """Return the runs and every table that a panel shows, by column; a table of several panels is included once, with the fields of all."""
    fields: dict[str, list[str]] = {table: list(names) for table, names in ITEM_TABLES.items()}
    for panel in panels_of(study.request.watch is not None):
        fields[panel.table] = list(dict.fromkeys([*fields.get(panel.table, ()), *panel.fields]))
    facts = run_facts(study)
    return {
        "runs": _columns(facts, list(facts[0]) if facts else ["run"]),
        "tables": {table: _columns(numbered(study, named_tables[table]), names) for table, names in fields.items()},
    }


def deflated(value: Any) -> str:
    """Return JSON, deflated and in base64: a quarter of its length or less, and no text in it can end the script element it stands in."""
    text = TURNING.sub("?", json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False))
    return base64.b64encode(zlib.compress(escaped_json(text).encode())).decode()


def _role(row: Record, chosen: Record) -> str:
    """Return the role of a run in the chosen pair: `dense`, `compressed` or `other`."""
    if row["run"] == chosen.get("run"):
        return "dense" if chosen["dense"] is None else "compressed"
    return "dense" if row["run"] == chosen.get("dense") else "other"


def _columns(records: Sequence[Record], fields: Sequence[str]) -> Columns:
    """Return records as columns; a column with the same value in all rows is kept as one value. `n` is the number of records."""
    columns = {field: [_short(record.get(field)) for record in records] for field in fields}
    return {"n": [len(records)]} | {field: values[:1] if _constant(values) else values for field, values in columns.items()}


def _constant(values: list[Any]) -> bool:
    return len(values) > 1 and not isinstance(values[0], list) and all(value == values[0] for value in values)


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return [_short(part) for part in value] if isinstance(value, list) else value
