"""The commands of `analyze` that end in a verdict: transfer, scale, cliffs, cost, gate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from analyzer.cli.options import SELECTION, against_option, analysis_options, at_option, comparison_options, format_option, track_option
from store.command import FILE, add_options, begin, colored, echo_colored, friendly_errors, store_option
from store.shown import message

SOURCES = ("dense", "prompt", "task", "subject")


@click.command("transfer")
@analysis_options
@against_option
@click.option("--from", "source", type=click.Choice(SOURCES), default="dense", show_default=True, help="Whose threshold is reused.")
@click.option(
    "--subject-mix",
    type=FILE,
    help="TOML with each subject's share under [subjects]: use weighted thresholds for this mix of subjects instead.",
)
@click.option(
    "--coverage-tolerance", metavar="X", type=float, default=0.01, show_default=True, help="Coverage losses up to this count as no loss."
)
@friendly_errors
def transfer_command(against: str | None, source: str, subject_mix: Path | None, coverage_tolerance: float, **options: Any) -> None:
    """What happens if you reuse the dense model's threshold?

    Prints coverage and set size of compressed runs with the dense run's threshold instead of their own, or with the threshold of another
    prompt, task or subject.

    Example: analyze transfer --model ref-m --from dense
    """
    begin(f"reusing thresholds of the runs of {options['store_url']}")
    from analyzer.cli.request import parse_request
    from analyzer.runs.loading import open_runs
    from analyzer.runs.pairs import Partners
    from analyzer.studies.threshold_transfer import check_source, transfer
    from analyzer.studies.weighted_conformal import read_mix, weighted
    from analyzer.tables.columns import TRANSFER, WEIGHTED
    from analyzer.tables.emit import emit

    check_source("subject" if subject_mix else source, against)
    request, mix = parse_request(options), read_mix(subject_mix) if subject_mix else None
    if mix:
        runs = open_runs(request.store_url, request.at, request.selection)
        emit(weighted(runs, request.question, mix, coverage_tolerance), request.form, WEIGHTED)
        return
    runs = open_runs(request.store_url, request.at, request.selection, with_dense=source == "dense", against=against)
    emit(transfer(runs, request.question, source, coverage_tolerance, Partners(runs.rows, against)), request.form, TRANSFER)


@click.command("guarantee")
@analysis_options
@click.option(
    "--delta", metavar="X", type=float, default=0.05, show_default=True, help="A guarantee may fail for this share of calibration sets."
)
@click.option("--next", "n_next", metavar="N", type=int, default=100, show_default=True, help="Foretell this many next questions.")
@click.option("--risk", metavar="X", type=float, default=0.1, show_default=True, help="Share of answers given alone that may be wrong.")
@friendly_errors
def guarantee_command(delta: float, n_next: int, risk: float, **options: Any) -> None:
    """What may be promised of each run.

    How well its sets cover with a stated probability, what the next questions will show, and how many it may answer alone.

    Example: analyze guarantee --model ref-m --task urn --delta 0.05 --next 200 --risk 0.1
    """
    begin(f"measuring the runs of {options['store_url']}")
    from analyzer.cli.request import parse_request
    from analyzer.runs.loading import open_runs
    from analyzer.studies.guarantee import guarantee
    from analyzer.tables.columns import GUARANTEE
    from analyzer.tables.emit import emit

    request = parse_request(options)
    runs = open_runs(request.store_url, request.at, request.selection)
    emit(guarantee(runs, request.question, delta=delta, n_next=n_next, risk=risk), request.form, GUARANTEE)


@click.command("position")
@analysis_options
@friendly_errors
def position_command(**options: Any) -> None:
    """Does the place at which an option stands change the answers?

    For runs in several orders of options (produce --options-order): how often each place is chosen, accuracy and set size in every order,
    and those of the mean over all orders, which every other command calls prompt base@mean4. Name a --prompt without its order.

    Example: analyze position --model ref-m --task urn --scorer lac
    """
    begin(f"comparing the orders of options in {options['store_url']}")
    from analyzer.cli.request import parse_request
    from analyzer.runs.loading import open_runs
    from analyzer.studies.position import position
    from analyzer.tables.columns import POSITION
    from analyzer.tables.emit import emit

    request = parse_request(options)
    runs = open_runs(request.store_url, request.at, {**request.selection, "prompt": ()})
    emit(position(runs, request.question, request.selection["prompt"]), request.form, POSITION)


@click.command("frontier")
@analysis_options
@click.option("--against", metavar="MODEL", help="Compare with the dense runs of this model, such as ref-l.")
@friendly_errors
def frontier_command(against: str | None, **options: Any) -> None:
    """Which compression to pick for a memory: accuracy and set size against the bytes of the weights.

    A run is dominated if another one with no more bytes is better beyond noise, and on the frontier if every such run is worse.

    Example: analyze frontier --model ref-m --task urn --scorer lac
    """
    begin(f"comparing the runs of {options['store_url']} by size")
    from analyzer.cli.request import parse_request
    from analyzer.runs.loading import open_runs
    from analyzer.runs.pairs import Partners
    from analyzer.studies.frontier import frontier
    from analyzer.tables.columns import FRONTIER
    from analyzer.tables.emit import emit

    request = parse_request(options)
    runs = open_runs(request.store_url, request.at, request.selection, with_dense=True, against=against)
    emit(frontier(runs, request.question, Partners(runs.rows, against)), request.form, FRONTIER)


@click.command("text")
@store_option
@at_option
@add_options(SELECTION)
@format_option
@friendly_errors
def text_command(store_url: str, at: str | None, form: str, **selection: Any) -> None:
    """How far is a compressed model from its dense model on running text?

    For the runs of produce --text: KL over the full vocabulary, share of tokens with the same most likely token, and perplexity, with
    intervals by document.

    Example: analyze text --model ref-m --task text:embedded
    """
    begin(f"reading the text runs of {store_url}")
    from analyzer.runs.loading import open_texts
    from analyzer.studies.text_fidelity import text_fidelity
    from analyzer.tables.columns import TEXT
    from analyzer.tables.emit import emit

    emit(text_fidelity(open_texts(store_url, at, selection)), form, TEXT)


@click.command("scale")
@analysis_options
@friendly_errors
def scale_command(**options: Any) -> None:
    """Do the prediction sets of larger models grow less?

    Growth of the mean set size against the number of parameters, by family and method.

    Example: analyze scale --method wanda --level 0.5
    """
    begin(f"comparing the models of {options['store_url']} by size")
    from analyzer.cli.request import parse_request
    from analyzer.runs.loading import open_runs
    from analyzer.studies.scale import scale
    from analyzer.tables.columns import SCALE
    from analyzer.tables.emit import emit

    request = parse_request(options)
    runs = open_runs(request.store_url, request.at, request.selection, with_dense=True)
    emit(scale(runs, request.question), request.form, SCALE)


@click.command("cliffs")
@analysis_options
@comparison_options
@against_option
@friendly_errors
def cliffs_command(against: str | None, **options: Any) -> None:
    """Find the strongest compression that is still safe. Does quality drop gradually or suddenly along the levels of a method?

    Example: analyze cliffs --method wanda --task urn --scorer lac
    """
    begin(f"following the levels of each method in {options['store_url']}")
    from analyzer.cli.request import parse_request
    from analyzer.compare.two_axis_verdict import tolerances
    from analyzer.runs.loading import open_runs
    from analyzer.runs.pairs import Partners
    from analyzer.studies.cliffs import cliffs
    from analyzer.tables.columns import CLIFFS
    from analyzer.tables.emit import emit

    request = parse_request(options)
    runs = open_runs(request.store_url, request.at, request.selection, with_dense=True, against=against)
    limits = tolerances(options)
    found = cliffs(runs, request.question, tolerances=limits, partners=Partners(runs.rows, against))
    emit(found, request.form, CLIFFS, [str(limits)])


@click.command("cost")
@analysis_options
@click.option(
    "--prices",
    "path",
    type=FILE,
    required=True,
    help="TOML with your prices: [prices] per question, [rules], [hardware] per 1,000 questions.",
)
@against_option
@friendly_errors
def cost_command(path: Path, against: str | None, **options: Any) -> None:
    """What does acting on the prediction sets cost per 1,000 questions?

    Compares the cost of review, of asking again and of wrong answers with what compression saves in hardware.

    Example: analyze cost --prices prices.toml --scorer lac
    """
    begin(f"pricing the prediction sets of {options['store_url']}")
    from analyzer.cli.request import parse_request
    from analyzer.runs.loading import open_runs
    from analyzer.runs.pairs import Partners
    from analyzer.studies.cost import cost, read_prices
    from analyzer.tables.columns import COST
    from analyzer.tables.emit import emit

    request, prices = parse_request(options), read_prices(path)
    runs = open_runs(request.store_url, request.at, request.selection, with_dense=True, against=against)
    emit(cost(runs, request.question, prices, Partners(runs.rows, against)), request.form, COST)


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
    """Check compressed models against release limits. Exits with 0 if all limits are kept, 1 if one is exceeded, 3 if undecided.

    Example: analyze gate --method gptq --limit accuracy_loss=0.02 --limit set_size_growth=0.1
    """
    begin(f"checking compressed runs of {options['store_url']} against the limits")
    from analyzer.cli.request import parse_request
    from analyzer.compare.compare import compare
    from analyzer.gate import ci_reports
    from analyzer.gate.gate import EXIT_CODES, gate, outcome
    from analyzer.gate.policy import read_policy
    from analyzer.gate.trackers import open_tracker, tracked
    from analyzer.predictor import Predictor
    from analyzer.runs.loading import open_runs
    from analyzer.runs.pairs import Partners
    from analyzer.tables.columns import GATE
    from analyzer.tables.emit import emit
    from analyzer.tables.verdict_colors import in_color
    from store.exchange.whole_file import write_document

    tracker = open_tracker(track) if track else None
    loaded = Predictor.load(predictor) if predictor else None
    request, read = parse_request(options), read_policy(policy, limits, loaded)
    _check_apart([options[name] for name in ("junit", "markdown", "eval_results") if options[name]])
    runs = open_runs(request.store_url, request.at, request.selection, with_dense=True, against=against)
    partners = Partners(runs.rows, against)
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
    sentences = (ci_reports.correction, ci_reports.together, ci_reports.again, ci_reports.not_judged)
    for line in filter(None, [say(checks) for say in sentences]):
        click.echo(line, err=True)
    judged = outcome(checks)
    last = message(ci_reports.last_line(checks))
    if colored(err=True):
        echo_colored(last.replace(judged, in_color(judged, judged), 1), err=True)
    else:
        click.echo(last, err=True)
    click.get_current_context().exit(EXIT_CODES[judged])


COMMANDS = (
    transfer_command,
    guarantee_command,
    position_command,
    frontier_command,
    text_command,
    scale_command,
    cliffs_command,
    cost_command,
    gate_command,
)


def _check_apart(paths: Sequence[Path]) -> None:
    """Raise UsageError if two reports would go to one file, where the last would take the place of the others."""
    from schemas.errors import UsageError

    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError(f"two reports would be written to one file: {', '.join(map(str, paths))}; give each a file of its own")
