"""The commands of `analyze` that study a question about stored runs: transfer, guarantee, position, frontier, text, scale, cliffs, cost."""

from pathlib import Path
from typing import Any

import click

from analyzer.cli.options import SELECTION, against_option, analysis_options, at_option, comparison_options, format_option
from store.command import FILE, add_options, begin, friendly_errors, store_option

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


COMMANDS = (
    transfer_command,
    guarantee_command,
    position_command,
    frontier_command,
    text_command,
    scale_command,
    cliffs_command,
    cost_command,
)
