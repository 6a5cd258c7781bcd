"""The rows that panels show, composed once: packed by column for the page, and as the page opens for the charts in files.

In: a study and its tables.  Out: what names a run, which rows a panel shows, and JSON values of six digits.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from analyzer.measure.records import Record
from analyzer.report.data.study import Study
from analyzer.report.data.tables import Tables
from analyzer.report.panels import COST_FIELDS, ITEM_FIELDS, PANELS, TEXT_FIELDS, Panel
from analyzer.runs.loading import level_strength
from analyzer.runs.pairs import Partners
from analyzer.studies.cliffs import sweep_kind
from schemas.fields import FIELDS
from schemas.levels import NO_LEVEL
from store.shown import TURNING, escaped_json

DIGITS = 6
OTHER_TABLES = {"costs": COST_FIELDS, "items": ITEM_FIELDS, "texts": TEXT_FIELDS}
KINDS = {"sparsity": "share", "pattern": "n:m"}  # every other level is a number of bits

Columns = dict[str, list[Any]]


def method_and_level(row: Mapping[str, Any]) -> str:
    """Return method and level as a reader meets them, such as `wanda 0.5`."""
    return str(row["method"]) if row["level"] == NO_LEVEL else f"{row['method']} {row['level']}"


def run_facts(study: Study) -> list[Record]:
    """Return, for each run in reading order, what names it and groups it.

    run, dense : numbers of the run and of its dense run in this list; `dense` is None without one.
    name       : method and level; of runs alike in everything that is shown, also the beginning of their digests.
    where      : task, and prompt where the runs have several.
    column     : of the heat map; `label` of a chart that lists runs.
    kind       : which levels are on one axis: share, n:m or bits.
    strength   : position on that axis; None for a name whose bits are not known.
    """
    rows, partners = study.runs.rows, Partners(study.runs.rows)
    number = {row["name"]: index for index, row in enumerate(rows)}
    shown = Counter(tuple(row[field] for field in FIELDS) for row in rows)
    many_prompts = len({row["prompt"] for row in rows}) > 1
    facts = []
    for row in rows:
        twin = shown[tuple(row[field] for field in FIELDS)] > 1
        name = method_and_level(row) + (f" #{study.runs.view(row).key.digest[:8]}" if twin else "")
        where = f"{row['task']} · {row['prompt']}" if many_prompts else row["task"]
        partner, strength = partners.of(row), level_strength(row["level"])
        facts.append(
            {field: row[field] for field in FIELDS}
            | {"run": number[row["name"]], "dense": number[partner["name"]] if partner else None}
            | {"name": name, "where": where, "column": f"{row['model']} · {where}", "label": f"{row['model']} · {name} · {where}"}
            | {"kind": KINDS.get(sweep_kind(row["level"]) or "", "bits"), "strength": strength if math.isfinite(strength) else None}
        )
    return facts


def opening_rows(panel: Panel, records: Sequence[Record], facts: Sequence[Record], chosen: Record) -> list[Record]:
    """Return the rows of a panel as the page opens, all filters open; rows.js does the same under filters.

    records : of the panel's table, whose `run` is the number of a run.
    facts   : of every run.  chosen : those of the run that panels about one run show.
    """
    rows = [facts[record["run"]] | {field: record.get(field) for field in panel.fields} for record in records]
    rows = [row | {"role": _role(row, chosen)} for row in rows]
    if panel.shows.pair:
        return [row for row in rows if row["role"] != "other"]
    return [row for row in rows if all(row[field] == chosen[field] for field in panel.shows.same)]


def numbered(study: Study, records: Sequence[Record]) -> list[Record]:
    """Return records whose `run` is the number of a run in place of its name."""
    number = {row["name"]: index for index, row in enumerate(study.runs.rows)}
    return [record | {"run": number[record["run"]]} if "run" in record else record for record in records]


def pack(study: Study, found: Tables) -> dict[str, Any]:
    """Return the runs and every table that a panel shows, by column, each table once whichever panels show it."""
    fields = {panel.table: panel.fields for panel in reversed(PANELS)} | OTHER_TABLES
    facts = run_facts(study)
    return {
        "runs": _columns(facts, list(facts[0]) if facts else ["run"]),
        "tables": {table: _columns(numbered(study, found[table]), wanted) for table, wanted in fields.items()},
    }


def in_script(value: Any) -> str:
    """Return JSON that is safe inside a script element, whatever text it holds."""
    text = TURNING.sub("?", json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return escaped_json(text)


def _role(row: Record, chosen: Record) -> str:
    """What a run is beside the chosen one: `dense`, `compressed` or `other`."""
    if row["run"] == chosen.get("run"):
        return "dense" if chosen["dense"] is None else "compressed"
    return "dense" if row["run"] == chosen.get("dense") else "other"


def _columns(records: Sequence[Record], fields: Sequence[str]) -> Columns:
    """Records as columns; a column that says the same in every row is kept once. `n` holds the number of records."""
    columns = {field: [_short(record.get(field)) for record in records] for field in fields}
    return {"n": [len(records)]} | {field: values[:1] if _constant(values) else values for field, values in columns.items()}


def _constant(values: list[Any]) -> bool:
    return len(values) > 1 and not isinstance(values[0], list) and all(value == values[0] for value in values)


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return [_short(part) for part in value] if isinstance(value, list) else value
