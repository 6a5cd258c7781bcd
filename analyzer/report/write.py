"""Write a report: the page to a file, tables to a file or stdout, the charts of the page as SVG and PNG files to a folder."""

from collections.abc import Mapping
from pathlib import Path

import click

from analyzer.report.charts.kept import kept_charts
from analyzer.report.charts.theme import Spec, for_paper
from analyzer.report.data.study import Study
from analyzer.report.data.tables import first_question_tables, tables
from analyzer.report.page import chart_facts, method_names, page
from analyzer.report.panels import panels_of
from analyzer.report.papers import paper
from analyzer.report.rows import numbered, opening_rows, run_facts
from schemas.errors import UsageError
from store.exchange.whole_file import write_document

PAGE = Path("report.html")
WIDTH, CELL = 640, 84  # pixels: width of a chart, and of a column of the heat map


def write_report(study: Study, form: str, path: Path | None) -> Path | None:
    """Write a study as html, md or latex and return the file. Without a path, a page goes to report.html, tables to stdout (returns None).

    Raises UsageError for a path that cannot be written.
    """
    if form == "html":
        return write_document(path or PAGE, page(study).encode())
    text = paper(study, form)
    if path is None:
        click.echo(text, nl=False)
        return None
    return write_document(path, text)


def write_charts(study: Study, folder: Path) -> None:
    """Write every chart that has rows as SVG and PNG. Raises UsageError for a folder that cannot be made or written."""
    import vl_convert

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror}") from error
    for name, spec in chart_specs(study).items():
        write_document(folder / f"{name}.svg", vl_convert.vegalite_to_svg(spec))
        write_document(folder / f"{name}.png", vl_convert.vegalite_to_png(spec, scale=2))


def chart_specs(study: Study) -> Mapping[str, Spec]:
    """Return the charts with their rows, styled for paper: for the first scorer, and the compressed run whose sets grew most."""
    first_tables = first_question_tables(tables(study), study.request.questions[0])
    facts = run_facts(study)
    pairs = numbered(study, [pair for pair in first_tables["pairs"] if not pair["unreliable"]])
    chosen = facts[max(pairs, key=lambda pair: pair["set_size_change"])["run"]] if pairs else next(iter(facts), {})
    specs = kept_charts(method_names(study), chart_facts(study))
    drawn = {}
    for panel in panels_of(study.request.watch is not None):
        records = numbered(study, first_tables.get(panel.table, []))
        rows = opening_rows(panel, records, facts, chosen) if not panel.calculated else []
        for name in panel.charts if rows else ():
            spec = for_paper(specs[name])
            width = {"step": CELL} if panel.id == "heat" else WIDTH
            drawn[name] = spec | {"width": width, "datasets": spec.get("datasets", {}) | {"rows": rows}}
    return drawn
