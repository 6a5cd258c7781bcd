"""The data of the page, packed: one document, tables by column, numbers of six digits, each table once whatever shows it."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from analyzer.measure.records import Record
from analyzer.report.data.study import Study
from analyzer.report.data.tables import Tables
from analyzer.report.panels import COST_FIELDS, ITEM_FIELDS, PANELS, TEXT_FIELDS
from analyzer.runs.loading import level_strength
from analyzer.runs.pairs import Partners
from schemas.fields import FIELDS

DIGITS = 6
ROW_FIELDS = {"costs": COST_FIELDS, "items": ITEM_FIELDS, "texts": TEXT_FIELDS}

Packed = dict[str, list[Any]]


def pack(study: Study, found: Tables) -> dict[str, Any]:
    """Return the runs and every table that a panel shows, as JSON values."""
    names = [row["name"] for row in study.runs.rows]
    number = {name: place for place, name in enumerate(names)}
    fields = {panel.table: panel.fields for panel in reversed(PANELS)} | ROW_FIELDS
    return {
        "runs": _runs(study, names),
        "tables": {table: _columns(_numbered(found[table], number), wanted) for table, wanted in fields.items()},
    }


def twin_marks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what tells runs apart that differ in nothing a reader is shown: the end of their names; empty for all others."""
    counts = Counter(tuple(row[field] for field in FIELDS) for row in rows)
    return [row["name"].rsplit(".", 1)[-1] if counts[tuple(row[field] for field in FIELDS)] > 1 else "" for row in rows]


def in_script(value: Any) -> str:
    """Return JSON that is safe inside a script element, whatever text it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _runs(study: Study, names: Sequence[str]) -> Packed:
    rows = study.runs.rows
    partners = Partners(rows)
    dense = [partner["name"] if (partner := partners.of(row)) else None for row in rows]
    strength = [level_strength(row["level"]) for row in rows]
    packed: Packed = {field: [row[field] for row in rows] for field in FIELDS}
    packed["dense"] = [names.index(name) if name else None for name in dense]
    packed["twin"] = twin_marks(rows)
    packed["strength"] = [value if math.isfinite(value) else None for value in strength]
    return packed


def _numbered(records: Sequence[Record], number: dict[str, int]) -> list[Record]:
    return [record | {"run": number[record["run"]]} if "run" in record else record for record in records]


def _columns(records: Sequence[Record], fields: Sequence[str]) -> Packed:
    """Records as columns; a column that says the same in every row is kept once."""
    columns = {field: [_short(record.get(field)) for record in records] for field in fields}
    return {"n": [len(records)]} | {field: values[:1] if _constant(values) else values for field, values in columns.items()}


def _constant(values: list[Any]) -> bool:
    return len(values) > 1 and not isinstance(values[0], list) and all(value == values[0] for value in values)


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return [_short(part) for part in value] if isinstance(value, list) else value
