"""Options that every analysis command has. Fast to import, so that `--help` is instant."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from schemas.fields import FIELDS
from store.command import add_options, color_option, store_option

FORMATS = ("table", "json", "csv", "parquet", "markdown", "latex")
EXECUTOR_NAMES = ("plain", "processes", "ray")
NAMED = dict(zip(FIELDS, ("ref-m", "wanda", "0.5", "urn", "base"), strict=True))  # an example value of each field
SELECTION = [
    click.option(f"--{field}", field, multiple=True, metavar=field.upper(), help=f"Only this {field}, such as {example}; repeatable.")
    for field, example in NAMED.items()
]
at_option = click.option("--at", metavar="SNAPSHOT|TAG", help="Read this snapshot or tag of the store, such as v1. [newest snapshot]")
scorers_option = click.option("--scorer", "scorers", multiple=True, metavar="S", help="Nonconformity score; repeatable. [lac, aps]")
_format = click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="How to print.")


def format_option(command: Any) -> Any:
    """Add `--format` and `--color`, by which a command prints its table."""
    return _format(color_option(command))


ALPHA_HELP = "Allowed miscoverage: 0.1, 1/10, or a range 0.01:0.99:0.01; repeatable. [0.1]"
SPLIT_HELP = "Average over all splits exactly, over N random splits, use the split of seed K, or calibrate on the item ids in a file. [all]"
CLUSTER_HELP = (
    "Items that depend on each other count as one unit in intervals, tests and verdicts: those of one subject, of one passage, or of one "
    "value in a table with a column id. item: every item counts, if all are drawn independently. [question: those that ask the same]"
)
parameter_option = click.option(
    "--parameter", "parameters", multiple=True, metavar="S.NAME=X", help="Parameter of a scorer, such as raps.penalty=0.1; repeatable."
)
OPTIONS: list[Callable[[Any], Any]] = [
    store_option,
    at_option,
    *SELECTION,
    click.option("--alpha", "alphas", multiple=True, metavar="A", help=ALPHA_HELP),
    scorers_option,
    parameter_option,
    click.option("--split", metavar="all|N|seed:K|file:PATH", help=SPLIT_HELP),
    click.option("--stratify", is_flag=True, help="Draw splits within each subject."),
    click.option("--cluster", metavar="item|subject|context|FILE:COLUMN", help=CLUSTER_HELP),
    click.option("--calibration-fraction", metavar="F", help="Share of the items that calibrate; the rest test. [0.5]"),
    click.option(
        "--protocol",
        default="exact",
        show_default=True,
        metavar="exact|ye2024|tong2026",
        help="exact: our own rules; ye2024, tong2026: split and calibrate as these published benchmarks did.",
    ),
    click.option(
        "--empty", type=click.Choice(["keep", "top1"]), help="Keep empty prediction sets, or put the most likely option into them. [keep]"
    ),
    click.option(
        "--reliability",
        type=click.Choice(["none", "temperature"]),
        help="Rescale the probabilities by a temperature fitted on the calibration items of each split. [none]",
    ),
    format_option,
]


DETAILS: list[Callable[[Any], Any]] = [
    click.option("--average", is_flag=True, help="Print means over prompts and scorers; runs that differ otherwise stay apart."),
    click.option(
        "--by",
        type=click.Choice(["none", "subject", "label", "size"]),
        help="Also print coverage within each subject, label or set size. [none]",
    ),
    click.option(
        "--mondrian",
        type=click.Choice(["none", "subject", "label"]),
        help="Calibrate each subject or label separately, with its own threshold. [none]",
    ),
    click.option("--sizes", is_flag=True, help="Also print how often each set size occurs."),
    click.option("--quantiles", is_flag=True, help="Also print quantiles of coverage over the splits."),
    click.option(
        "--reference", type=click.Path(path_type=Path), help="CSV of stated figures: print them beside those measured, and how many agree."
    ),
    click.option("--p-values", "p_values", is_flag=True, help="Print instead every option's p-value, from which sets at any alpha follow."),
]
TOLERANCES = [
    click.option(
        "--accuracy-tolerance",
        metavar="X",
        type=float,
        default=0.02,
        show_default=True,
        help="Accuracy losses up to this count as no loss.",
    ),
    click.option(
        "--set-size-tolerance",
        metavar="X",
        type=float,
        default=0.1,
        show_default=True,
        help="Growth of the mean set size up to this counts as none.",
    ),
]
against_option = click.option("--against", metavar="MODEL", help="Compare with the dense runs of this model, such as ref-l. [its own]")
track_option = click.option(
    "--track",
    metavar="mlflow:URI|wandb:PROJECT|trackio:PROJECT",
    help="Also write every run, with its figures and intervals, to this tool, such as mlflow:http://localhost:5000.",
)
EXECUTOR_HELP = "Analyze one model after the other, several in parallel processes, or on a Ray cluster."
executor_option = click.option("--executor", type=click.Choice(EXECUTOR_NAMES), default="plain", show_default=True, help=EXECUTOR_HELP)

analysis_options = add_options(OPTIONS)  # what every analysis command has
set_options = add_options(DETAILS)  # of `analyze sets`: what is printed of each run
comparison_options = add_options(TOLERANCES)  # of commands that tell small changes from large ones
