"""The charts as files for a paper: SVG and PNG of what the page shows when it opens."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from analyzer.measure.records import Record
from analyzer.report.charts.theme import Spec, for_paper
from analyzer.report.data.study import Study
from analyzer.report.data.tables import first_asked, tables
from analyzer.report.pack import twin_marks
from analyzer.report.page import chart_facts, method_names
from analyzer.report.panels import PANELS, Panel
from analyzer.runs.loading import level_strength
from analyzer.runs.pairs import Partners
from schemas.fields import FIELDS

WIDTH, CELL = 640, 84  # pixels: of a chart, and of a column of the heat map
CALCULATED = "cost"  # its figures are made in the page, from prices typed in
GROUPS = {"neighbours": ("model", "task", "prompt"), "sweep": ("model", "task", "prompt", "kind"), "task": ("task", "prompt")}


class Figure(NamedTuple):
    """One chart as files."""

    name: str
    svg: str
    png: bytes


def figures(study: Study) -> Iterator[Figure]:
    """Yield every chart that has rows, with the first scorer and the compressed run whose sets grew most."""
    import vl_convert

    for name, spec in specs(study).items():
        yield Figure(name, vl_convert.vegalite_to_svg(spec), vl_convert.vegalite_to_png(spec, scale=2))


def specs(study: Study) -> dict[str, Spec]:
    """Return the charts with their rows, bound for paper."""
    found = first_asked(tables(study), study.asked.questions[0])
    known = _identities(study)
    pairs = [pair for pair in found["pairs"] if not pair["unreliable"]]
    chosen = known[max(pairs, key=lambda pair: pair["set_size_change"])["run"]] if pairs else next(iter(known.values()), {})
    methods, facts = method_names(study), chart_facts(study)
    drawn = {}
    for panel in PANELS:
        rows = _rows(panel, found.get(panel.table, []), known, chosen) if panel.id != CALCULATED else []
        for name, make in (panel.charts or {}).items() if rows else ():
            spec = for_paper(make(methods, facts))
            width = {"step": CELL} if panel.id == "heat" else WIDTH
            drawn[name] = spec | {"width": width, "datasets": spec.get("datasets", {}) | {"rows": rows}}
    return drawn


def _rows(panel: Panel, records: list[Record], known: dict[str, Record], chosen: Record) -> list[Record]:
    """The same rows as the page shows when it opens."""
    rows = [known[record["run"]] | {field: record.get(field) for field in panel.fields} for record in records]
    rows = [row | {"role": _role(row, chosen)} for row in rows]
    if panel.follows == "pair":
        return [row for row in rows if row["role"] != "other"]
    return [row for row in rows if all(row[field] == chosen[field] for field in GROUPS.get(panel.follows, ()))]


def _role(row: Record, chosen: Record) -> str:
    if row["run"] == chosen.get("run"):
        return "compressed" if chosen["dense"] else "dense"
    return "dense" if row["run"] == chosen.get("dense") else "other"


def _identities(study: Study) -> dict[str, Record]:
    rows = study.runs.rows
    partners = Partners(rows)
    many = len({row["prompt"] for row in rows}) > 1
    found: dict[str, Any] = {}
    for row, twin in zip(rows, twin_marks(rows), strict=True):
        level, partner = row["level"], partners.of(row)
        name = (row["method"] if level == "-" else f"{row['method']} {level}") + (f" #{twin}" if twin else "")
        place = f"{row['task']} · {row['prompt']}" if many else row["task"]
        kind = "n:m" if ":" in level else "share" if re.fullmatch(r"[\d.e+-]+", level) else "bits"
        found[row["name"]] = {field: row[field] for field in FIELDS} | {
            "run": row["name"],
            "name": name,
            "place": place,
            "column": f"{row['model']} · {place}",
            "label": f"{row['model']} · {name} · {place}",
            "kind": kind,
            "dense": partner["name"] if partner else None,
            "strength": level_strength(level) if level_strength(level) < 1e9 else None,
        }
    return found
