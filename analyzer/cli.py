"""The command `analyze`: a thin shell over the functions of the same names."""

import logging
from typing import Any

import click

from analyzer.options import analysis_options
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
@click.option("--average", is_flag=True, help="Print means over prompts and scorers instead of every run.")
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
@friendly_errors
def compare_command(**options: Any) -> None:
    """Compare every compressed run with its dense run: changes with paired intervals, flips, KL.

    Example: analyze compare --model ref-m --task urn --scorer lac
    """
    from analyzer.columns import COMPARE
    from analyzer.compare import compare
    from analyzer.loading import open_runs
    from analyzer.output import emit
    from analyzer.request import request

    asked = request(options)
    runs = open_runs(asked.store_url, asked.at, asked.wanted, with_dense=True)
    emit(compare(runs, asked.question), asked.form, COMPARE)
