"""The commands `analyze report` (a page, or tables and charts for a paper) and `analyze serve` (the page, updated when runs arrive)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from analyzer.cli.options import (
    CLUSTER_HELP,
    SELECTION,
    TOLERANCES,
    against_option,
    at_option,
    parameter_option,
    scorers_option,
    track_option,
)
from store.command import FILE, add_options, begin, friendly_errors, store_option

OPTIONS: list[Callable[[Any], Any]] = [
    store_option,
    at_option,
    *SELECTION,
    click.option(
        "--alpha",
        metavar="A",
        default="0.1",
        show_default=True,
        help="Allowed miscoverage when the page opens; its slider offers all others.",
    ),
    against_option,
    scorers_option,
    parameter_option,
    click.option("--protocol", "protocols", multiple=True, metavar="P", help="exact, ye2024 or tong2026; repeatable. [exact]"),
    click.option("--cluster", metavar="item|subject|context|FILE:COLUMN", help=CLUSTER_HELP),
    click.option("--policy", type=FILE, help="TOML with the limits of the release gate. [the two tolerances are the limits]"),
    click.option("--limit", "limits", multiple=True, metavar="FIGURE=X", help="A limit of the gate, such as flips=0.05; repeatable."),
    click.option("--prices", type=FILE, help="TOML with the prices that the cost calculator starts with. [made-up prices]"),
    click.option("--predictor", type=FILE, help="Predictor that analyze monitor watches, such as predictor.json. [none]"),
    click.option("--watch", type=FILE, help="State that analyze monitor --state keeps: adds a panel of live questions. [none]"),
]
report_options = add_options([*TOLERANCES, *OPTIONS])  # what both commands take: which runs, which question, which policy


@click.command("report")
@report_options
@click.option(
    "--format", "form", type=click.Choice(["html", "md", "latex"]), default="html", show_default=True, help="A page, or tables for a paper."
)
@click.option("--out", type=FILE, help="File to write. [report.html; tables go to stdout]")
@click.option(
    "--figures",
    "charts",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write the charts to this folder, such as figures.",
)
@track_option
@friendly_errors
def report_command(form: str, out: Path | None, charts: Path | None, track: str | None, **options: Any) -> None:
    """Write verdicts and all studies as one HTML page that opens offline, or as tables and charts for a paper.

    Example: analyze report --store demo-store --out report.html
    """
    begin(f"analyzing the runs of {options['store_url']} for the report")
    from analyzer.report.data.study import open_study
    from analyzer.report.write import write_charts, write_report
    from analyzer.tracking.trackers import open_tracker, tracked

    tracker = open_tracker(track) if track else None
    study = open_study(options)
    path = write_report(study, form, out)
    if charts:
        write_charts(study, charts)
    if path:
        click.echo(path)
    if tracker:
        click.echo(tracker.track("report", tracked(study.checks)), err=True)


@click.command("serve")
@report_options
@click.option("--port", type=click.IntRange(0, 65535), default=8787, show_default=True, help="Port on 127.0.0.1; 0 chooses a free one.")
@friendly_errors
def serve_command(port: int, **options: Any) -> None:
    """Show the report at localhost and refresh it as runs arrive. It is read-only and reachable from this machine alone.

    Example: analyze serve --store demo-store --port 8787
    """
    begin(f"analyzing the runs of {options['store_url']} for the page")
    from analyzer.report.serve import make_server

    with make_server(options, port) as server:
        click.echo(f"http://{server.server_name}:{server.server_port}/ (stop with Ctrl-C)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("stopped", err=True)


@click.command("study")
@click.argument("name", metavar="tong2026|ye2024|dutta2024")
@store_option
@at_option
@add_options([*SELECTION, *TOLERANCES])
@click.option("--alpha", "alphas", metavar="A", default="0.1", show_default=True, help="Allowed miscoverage.")
@scorers_option
@click.option("--protocol", metavar="P", help="exact, ye2024 or tong2026. [the study's own]")
@click.option(
    "--reference",
    type=FILE,
    help="CSV of published figures to set beside the measured ones, such as figures.csv. [those that come along, if any]",
)
@click.option(
    "--format", "form", type=click.Choice(["html", "latex", "md"]), default="html", show_default=True, help="A page, or text for a paper."
)
@click.option("--out", type=FILE, help="File to write. [NAME.html; text goes to stdout]")
@click.option("--figures", type=click.Path(path_type=Path, file_okay=False), help="Also write the figures to this folder, such as figures.")
@friendly_errors
def study_command(name: str, form: str, out: Path | None, figures: Path | None, **options: Any) -> None:
    """Write the tables and figures of a published study from the runs that produce --plan NAME made.

    Main table, parts of the study, growth by size, scatter, and published figures beside the measured ones, all with intervals.

    Example: analyze study tong2026 --reference figures.csv --out tong2026.html
    """
    begin(f"analyzing the runs of {options['store_url']} for study {name}")
    from analyzer.compare.two_axis_verdict import tolerances
    from analyzer.protocols.ask import ask
    from analyzer.report.study_page import sections, study_document, write_figures
    from analyzer.runs.loading import open_runs
    from analyzer.studies.published_figures import read_published
    from analyzer.studies.published_studies import study_named, study_records
    from schemas.fields import FIELDS
    from store.exchange.whole_file import write_document

    study, allowed = study_named(name), tolerances(options)
    question = ask(alphas=options["alphas"], scorers=options["scorers"], protocol=options["protocol"] or study.protocol)
    reference = options["reference"] or study.figures
    stated = read_published(reference) if reference else ()
    runs = open_runs(options["store_url"], options["at"], {field: options[field] for field in FIELDS}, with_dense=True)
    shown = sections(study, study_records(runs, question, allowed, stated, study.n_items), allowed)
    if figures:
        write_figures(shown, figures)
    text = study_document(form, study, shown, runs.reader.snapshot, figures)
    if out is None and form != "html":
        click.echo(text, nl=False)
    else:
        click.echo(write_document(out or Path(f"{name}.html"), text))


COMMANDS = (report_command, serve_command, study_command)
