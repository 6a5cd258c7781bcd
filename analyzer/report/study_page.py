"""A published study as a document: its tables and figures from the store, as HTML that opens offline, LaTeX or Markdown.

In: the records of a study's parts.  Out: text, and the figures as Vega-Lite specifications in the colours of paper.
"""

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from analyzer.compare.two_axis_verdict import Tolerances
from analyzer.measure.records import Record
from analyzer.report.charts import comparison_charts, study_charts
from analyzer.report.charts.theme import Spec, css_colours, for_paper
from analyzer.report.page import template
from analyzer.studies.published_studies import Kind, Part, PublishedStudy, StudyRecords, part_records
from analyzer.tables.columns import COMPARE, PUBLISHED, SCALE, SETS
from analyzer.tables.latex import PACKAGES, escaped, latex
from analyzer.tables.markup import in_line, markdown
from analyzer.tables.terminal import Column, sheet
from schemas.levels import method_and_level
from schemas.run import DENSE
from store.exchange.whole_file import write_document
from store.shown import printable

WIDTH = 640  # of a figure, pixels
COLUMNS: dict[Kind, Sequence[Column]] = {"scale": SCALE, "published": PUBLISHED}
NOTHING_YET = "The store has no run of this part yet."


class Section(NamedTuple):
    """One part of a study with its records and its figure, None if it has none or no rows."""

    part: Part
    records: list[Record]
    columns: Sequence[Column]
    figure: Spec | None


def sections(study: PublishedStudy, of_study: StudyRecords, tolerances: Tolerances) -> list[Section]:
    """Return every part of a study in order; the part of published figures only where some were given."""
    shown = []
    for part in study.parts:
        records = part_records(part, of_study)
        if records or part.kind != "published":
            shown.append(Section(part, records, _columns(part, records), _figure(part, records, tolerances)))
    return shown


def study_document(form: str, study: PublishedStudy, shown: Sequence[Section], snapshot: str, figures: Path | None = None) -> str:
    """Return the study as text; `form` is html, latex or md. `figures` is the folder of `write_figures`, if they are written."""
    return FORMS[form](study, shown, snapshot, figures)


def write_figures(shown: Sequence[Section], folder: Path) -> None:
    """Write every figure as SVG, and as PDF for LaTeX."""
    import vl_convert

    folder.mkdir(parents=True, exist_ok=True)
    for section in shown:
        if section.figure:
            write_document(folder / f"{section.part.figure}.svg", vl_convert.vegalite_to_svg(section.figure))
            write_document(folder / f"{section.part.figure}.pdf", vl_convert.vegalite_to_pdf(section.figure))


def _columns(part: Part, records: Sequence[Record]) -> Sequence[Column]:
    compared = any(record.get("compared_with") for record in records)
    return COLUMNS.get(part.kind, COMPARE if compared else SETS)


def _figure(part: Part, records: Sequence[Record], tolerances: Tolerances) -> Spec | None:
    sound = [record for record in records if not record["unreliable"] and record["method"] != DENSE]
    if part.kind == "scale":
        sound = [record for record in sound if record["parameters"] and record["inflation"] is not None]
    if not part.figure or not sound:
        return None
    rows = [
        record | {"name": method_and_level(record["method"], record["level"]), "where": record["task"], "prompt": ""} for record in sound
    ]
    if part.kind == "along levels":  # one line per model where there is one method, else one per model and method
        several = len({record["method"] for record in rows}) > 1
        rows = [row | {"method": f"{row['model']} {row['method']}" if several else row["model"]} for row in rows]
    names = sorted({row["method"] for row in rows})
    facts = {"accuracy_tolerance": tolerances.accuracy, "set_size_tolerance": tolerances.set_size}
    return for_paper(DRAWN[part.kind](names, facts)) | {"width": WIDTH, "datasets": {"rows": rows}}


DRAWN: dict[Kind, Callable[[list[str], dict[str, Any]], Spec]] = {
    "by task": comparison_charts.decoupling,
    "along levels": study_charts.cliff("set_size_change", "change in set size", (-0.1, 0.2)),
    "scale": study_charts.scale,
}


def _html(study: PublishedStudy, shown: Sequence[Section], snapshot: str, figures: Path | None) -> str:
    parts = [
        {
            "title": section.part.title,
            "about": section.part.about,
            "caption": printable(sheet(section.records, section.columns).caption) if section.records else NOTHING_YET,
            "titles": [title for title, _ in cells],
            "rows": list(zip(*(texts for _, texts in cells), strict=True)),
            "notes": [printable(note) for note in sheet(section.records, section.columns).notes] if section.records else [],
            "figure": _image(section.figure) if section.figure else "",
        }
        for section in shown
        for cells in [_cells(section)]
    ]
    colours = {"light": css_colours(dark=False), "dark": css_colours(dark=True)}
    return str(template("study.html").render(paper=study.paper, parts=parts, snapshot=snapshot, colours=colours))


def _cells(section: Section) -> list[tuple[str, list[str]]]:
    columns = sheet(section.records, section.columns).columns if section.records else []
    cells = [(column.title, [printable(column.text(record)) for record in section.records]) for column in columns]
    return [(title, texts) for title, texts in cells if any(texts)]


def _image(figure: Spec) -> str:
    """Return a figure as the address of an image, in which nothing can run."""
    import vl_convert

    return "data:image/svg+xml;base64," + base64.b64encode(vl_convert.vegalite_to_svg(figure).encode()).decode()


def _latex(study: PublishedStudy, shown: Sequence[Section], snapshot: str, figures: Path | None) -> str:
    lines = [PACKAGES + (r", and \usepackage{graphicx}" if figures else ""), f"% snapshot {snapshot}"]
    lines.append(f"% {escaped(study.paper)}")
    for section in shown:
        if not section.records:
            lines.append(f"% {escaped(section.part.title)}: {NOTHING_YET}")
            continue
        lines.append(latex(section.records, section.columns, section.part.title))
        if figures and section.figure:
            path = (figures / f"{section.part.figure}.pdf").as_posix()
            caption = rf"\caption{{\textbf{{{escaped(section.part.title)}.}} {escaped(section.part.about)}}}"
            label = rf"\label{{fig:{section.part.figure}}}"
            image = rf"\includegraphics[width=\linewidth]{{{path}}}"
            lines.append("\n".join([r"\begin{figure}", image, caption + label, r"\end{figure}"]))
    return "\n\n".join(lines) + "\n"


def _markdown(study: PublishedStudy, shown: Sequence[Section], snapshot: str, figures: Path | None) -> str:
    parts = [f"# {in_line(study.paper)}"]
    for section in shown:
        parts += [f"## {section.part.title}", section.part.about]
        parts.append(markdown(section.records, section.columns) if section.records else NOTHING_YET)
        if figures and section.figure:
            parts.append(f"![{section.part.title}]({(figures / section.part.figure).as_posix()}.svg)")
    return "\n\n".join([*parts, f"Snapshot `{snapshot}`."]) + "\n"


FORMS: dict[str, Callable[[PublishedStudy, Sequence[Section], str, Path | None], str]] = {
    "html": _html,
    "latex": _latex,
    "md": _markdown,
}
