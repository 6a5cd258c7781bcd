"""Where a report goes: a page to a file, tables to a file or stdout, figures to a folder."""

from pathlib import Path

import click

from analyzer.report.data.study import Study
from schemas.errors import UsageError

PAGE = Path("report.html")


def write_report(study: Study, form: str, path: Path | None) -> Path | None:
    """Write a study as html, md or latex and return the file; tables without a file go to stdout, a page to report.html.

    Raises UsageError for a path that cannot be written.
    """
    if form == "html":
        from analyzer.report.page import page

        return _write(path or PAGE, page(study).encode())
    from analyzer.report.papers import paper

    text = paper(study, form)
    if path is None:
        click.echo(text, nl=False)
        return None
    return _write(path, text.encode())


def write_figures(study: Study, folder: Path) -> None:
    """Write every chart as SVG and PNG. Raises UsageError for a folder that cannot be made or written."""
    from analyzer.report.chart_files import figures

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror}") from error
    for figure in figures(study):
        _write(folder / f"{figure.name}.svg", figure.svg.encode())
        _write(folder / f"{figure.name}.png", figure.png)


def _write(path: Path, content: bytes) -> Path:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    return path
