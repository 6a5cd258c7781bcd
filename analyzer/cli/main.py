"""The command `analyze`: a thin layer over the functions of the same names."""

import logging
from pathlib import Path
from typing import Any

import click

from analyzer.cli.gate import gate_command
from analyzer.cli.options import against_option, analysis_options, comparison_options, executor_option, set_options, track_option
from analyzer.cli.report import COMMANDS as REPORTS
from analyzer.cli.ship import COMMANDS as SHIPPING
from analyzer.cli.studies import COMMANDS as STUDIES
from schemas.errors import UsageError
from store.command import ShellGroup, begin, friendly_errors, log_to_stderr
from store.shown import message


@click.group(cls=ShellGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hedgemark", message="%(package)s %(version)s")
@click.option("-v", "--verbose", is_flag=True, help="Log more on stderr.")
def main(verbose: bool) -> None:
    """Answer questions about stored runs: prediction sets, coverage, and what compression changed.

    Example: analyze compare --model ref-m --task urn
    """
    log_to_stderr(logging.INFO if verbose else logging.WARNING)


@main.command("sets")
@analysis_options
@set_options
@executor_option
@track_option
@friendly_errors
def sets_command(average: bool, executor: str, p_values: bool, reference: Path | None, track: str | None, **options: Any) -> None:
    """Accuracy, coverage and set size of every run.

    Example: analyze sets --task mmlu --alpha 0.05 --alpha 0.1 --scorer lac
    """
    begin(f"measuring the runs of {options['store_url']}")
    from analyzer.cli.request import parse_request
    from analyzer.runs.loading import open_runs
    from analyzer.studies.executors import Measurement, measure_models, model_sources
    from analyzer.studies.p_values import p_value_records
    from analyzer.studies.reference_file import read_reference
    from analyzer.studies.replayed_figures import beside_reference, summary
    from analyzer.studies.sets import sets
    from analyzer.tables.columns import P_VALUES, SETS, replayed
    from analyzer.tables.emit import emit
    from analyzer.tracking.trackers import open_tracker, tracked_sets

    if p_values and reference:
        raise UsageError("--reference states figures, which --p-values does not print; leave one of them out")
    if p_values and track:
        raise UsageError("--track writes figures of runs, which --p-values does not print; leave one of them out")
    tracker = open_tracker(track) if track else None
    stated = read_reference(reference) if reference else None
    request = parse_request(stated.completed(options) if stated else options)
    average = average or (stated is not None and stated.averaged)
    runs = open_runs(request.store_url, request.at, request.selection)
    if p_values:
        emit(p_value_records(runs, request.question), request.form, P_VALUES)
        return
    if executor == "plain":
        records = sets(runs, request.question, average=average)
    else:
        records = measure_models(model_sources(runs, request.store_url), Measurement(request.question, average), executor)
    if stated is None:
        emit(records, request.form, SETS)
    else:
        compared = beside_reference(records, stated)
        emit(compared, request.form, replayed(compared))
        for sentence in summary(compared, stated, records):
            click.echo(message(sentence), err=True)
    if tracker:
        click.echo(tracker.track("sets", tracked_sets(records)), err=True)


@main.command("compare")
@analysis_options
@comparison_options
@against_option
@click.option("--common-items", is_flag=True, help="Compare runs that answered different items on the items they share.")
@click.option("--average", is_flag=True, help="Print means over prompts and scorers; runs that differ otherwise stay apart.")
@click.option("--decoupling", is_flag=True, help="Print how changes in accuracy and set size go together, over all pairs.")
@executor_option
@click.option("--reference", type=click.Path(path_type=Path), help="CSV of published figures: print them beside the measured ones.")
@friendly_errors
def compare_command(against: str | None, common_items: bool, **options: Any) -> None:
    """Compare every compressed run with its dense run: paired changes, flips, KL, tests, and a verdict on two axes.

    Example: analyze compare --model ref-m --task urn --scorer lac
    """
    begin(f"comparing compressed runs of {options['store_url']} with their dense runs")
    from analyzer.cli.request import parse_request
    from analyzer.compare.compare import compare
    from analyzer.compare.two_axis_verdict import tolerances
    from analyzer.runs.loading import open_runs
    from analyzer.runs.pairs import Partners
    from analyzer.studies.decoupling import decoupling
    from analyzer.studies.executors import Comparison, compare_models, model_sources
    from analyzer.studies.published_figures import beside_published, read_published
    from analyzer.tables.columns import COMPARE, DECOUPLING, PUBLISHED
    from analyzer.tables.emit import emit

    request = parse_request(options)
    stated = read_published(options["reference"]) if options["reference"] else None
    runs = open_runs(request.store_url, request.at, request.selection, with_dense=True, against=against)
    if stated:
        emit(beside_published(runs, request.question, stated), request.form, PUBLISHED)
        return
    limits, average = tolerances(options), options["average"]
    if against or options["executor"] == "plain":
        partners = Partners(runs.rows, against, common_items)
        records = compare(runs, request.question, partners=partners, tolerances=limits, average=average)
    else:
        work = Comparison(request.question, limits, common_items, average)
        records = compare_models(model_sources(runs, request.store_url), work, options["executor"])
    shown = (decoupling(records), DECOUPLING) if options["decoupling"] else (records, COMPARE)
    emit(shown[0], request.form, shown[1], [str(limits)])


for command in (*STUDIES, gate_command, *SHIPPING, *REPORTS):
    main.add_command(command)


@main.command("sensitivity")
@analysis_options
@against_option
@friendly_errors
def sensitivity_command(against: str | None, **options: Any) -> None:
    """Which conclusions survive other choices of alpha, scorer, prompt, calibration fraction, items and split?

    Example: analyze sensitivity --model ref-m --task urn --alpha 0.1 --scorer lac
    """
    begin(f"asking the runs of {options['store_url']} in other ways")
    from analyzer.cli.request import parse_request
    from analyzer.runs.loading import open_runs
    from analyzer.runs.pairs import Partners
    from analyzer.studies.sensitivity import sensitivity
    from analyzer.tables.columns import SENSITIVITY
    from analyzer.tables.emit import emit

    request = parse_request(options)
    runs = open_runs(request.store_url, request.at, request.selection, with_dense=True, against=against)
    emit(sensitivity(runs, request.question, Partners(runs.rows, against)), request.form, SENSITIVITY)
