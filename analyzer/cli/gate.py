"""`analyze gate`: release limits, and the files that CI keeps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from analyzer.cli.options import against_option, analysis_options, track_option
from store.command import FILE, begin, colored, echo_colored, friendly_errors
from store.shown import message


@click.command("gate")
@analysis_options
@against_option
@click.option(
    "--policy", type=FILE, help="TOML with limits under [limits], [task.<name>] and [worst_subject], and planned looks under [looks]."
)
@click.option("--limit", "limits", multiple=True, metavar="FIGURE=X", help="A limit, such as accuracy_loss=0.02; repeatable.")
@click.option(
    "--predictor",
    type=FILE,
    help="Also check that this file's threshold, such as that of predictor.json, still covers under the compressed model.",
)
@click.option("--junit", type=FILE, help="Also write JUnit XML, such as gate.xml.")
@click.option("--markdown", type=FILE, help="Also write a Markdown summary, such as gate.md.")
@click.option("--eval-results", type=FILE, help="Also write one model's results for the Hub, such as .eval_results/hedgemark.yaml.")
@click.option(
    "--hub-dataset",
    "data_sets",
    multiple=True,
    metavar="TASK=OWNER/NAME",
    help="Hub data set of a task in the results, such as urn=me/urns; repeatable. [the published tasks' own]",
)
@track_option
@friendly_errors
def gate_command(
    policy: Path | None, limits: tuple[str, ...], predictor: Path | None, against: str | None, track: str | None, **options: Any
) -> None:
    """Check compressed models against release limits.

    Exits with 0 if all limits are kept, 1 if one is exceeded or a compressed run cannot be trusted, 3 if undecided.

    Example: analyze gate --method gptq --limit accuracy_loss=0.02 --limit set_size_growth=0.1
    """
    begin(f"checking compressed runs of {options['store_url']} against the limits")
    from analyzer.cli.request import parse_request
    from analyzer.compare.compare import compare
    from analyzer.gate import ci_reports
    from analyzer.gate.gate import EXIT_CODES, gate, outcome, tasks_not_judged
    from analyzer.gate.policy import read_policy
    from analyzer.predictor import Predictor
    from analyzer.runs.loading import open_runs
    from analyzer.runs.pairs import Partners
    from analyzer.tables.columns import GATE
    from analyzer.tables.emit import emit
    from analyzer.tables.verdict_colors import in_color
    from analyzer.tracking.trackers import open_tracker, tracked
    from store.exchange.whole_file import write_document

    tracker = open_tracker(track) if track else None
    loaded = Predictor.load(predictor) if predictor else None
    request, read = parse_request(options), read_policy(policy, limits, loaded)
    _check_apart([options[name] for name in ("junit", "markdown", "eval_results") if options[name]])
    runs = open_runs(request.store_url, request.at, request.selection, with_dense=True, against=against)
    partners, not_judged = Partners(runs.rows, against), tasks_not_judged(read.limits, runs, options["task"])
    checks = gate(runs, request.question, read.limits, partners, read.looks)
    reports = {options["junit"]: ci_reports.junit(checks), options["markdown"]: ci_reports.markdown(checks)}
    if options["eval_results"]:
        data_sets = dict(ci_reports.hub_data_set(text) for text in options["data_sets"])
        reports[options["eval_results"]] = ci_reports.eval_results(checks, compare(runs, request.question, partners=partners), data_sets)
    for path, text in reports.items():
        if path:
            write_document(path, text)
    emit(checks, request.form, GATE)
    if tracker:
        click.echo(tracker.track("gate", tracked(checks)), err=True)
    for line in [*ci_reports.sentences(checks), *filter(None, [ci_reports.not_judged(checks)])]:
        click.echo(line, err=True)
    if not_judged:
        click.echo(f"limits on {', '.join(not_judged)} are not judged: no selected run is of them", err=True)
    judged = outcome(checks)
    last = message(ci_reports.last_line(checks))
    if colored(err=True):
        echo_colored(last.replace(judged, in_color(judged, judged), 1), err=True)
    else:
        click.echo(last, err=True)
    click.get_current_context().exit(EXIT_CODES[judged])


def _check_apart(paths: Sequence[Path]) -> None:
    """Raise UsageError if two reports would go to one file, where the last would take the place of the others."""
    from schemas.errors import UsageError

    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError(f"two reports would be written to one file: {', '.join(map(str, paths))}; give each a file of its own")
