"""The command `analyze`: a thin shell over the functions of the same names."""

import logging
from typing import Any

import click

from analyzer.options import analysis_options, comparison_options, set_options
from schemas.command import friendly_errors


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, help="Say more on stderr.")
def main(verbose: bool) -> None:
    """Answer questions about stored runs: prediction sets, coverage, and what compression changed.

    Example: analyze compare --model ref-m --task urn
    """
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s")


@main.command("sets")
@analysis_options
@set_options
@friendly_errors
def sets_command(average: bool, **options: Any) -> None:
    """Prediction sets of every run: accuracy, coverage, set size.

    Example: analyze sets --task mmlu --alpha 0.05 --alpha 0.1 --scorer lac
    """
    from analyzer.columns import SETS
    from analyzer.loading import open_runs
    from analyzer.output import emit
    from analyzer.request import request
    from analyzer.sets import sets

    asked = request(options)
    runs = open_runs(asked.store_url, asked.at, asked.wanted)
    emit(sets(runs, asked.question, average=average), asked.form, SETS)


@main.command("compare")
@analysis_options
@comparison_options
@click.option("--against", metavar="MODEL", help="Compare every run with this model's dense runs instead of with its own.")
@click.option("--common-items", is_flag=True, help="Compare runs asked of different items on those they share.")
@click.option("--average", is_flag=True, help="Print means over prompts and scorers instead of every run.")
@friendly_errors
def compare_command(against: str | None, common_items: bool, average: bool, **options: Any) -> None:
    """Compare every compressed run with its dense run: paired changes, flips, KL, tests, and a verdict on two axes.

    Example: analyze compare --model ref-m --task urn --scorer lac
    """
    from analyzer.columns import COMPARE
    from analyzer.compare import compare
    from analyzer.loading import open_runs
    from analyzer.output import emit
    from analyzer.pairs import Partners
    from analyzer.request import request, tolerances

    asked = request(options)
    runs = open_runs(asked.store_url, asked.at, asked.wanted, with_dense=True, against=against)
    partners = Partners(runs.rows, against, common_items)
    emit(compare(runs, asked.question, partners=partners, tolerances=tolerances(options), average=average), asked.form, COMPARE)
