"""The `store items` commands, which check item files before a model is run on them."""

from collections.abc import Sequence
from pathlib import Path

import click

from store.cli.printing import format_option, print_table
from store.command import friendly_errors
from store.shown import counted


@click.group()
def items() -> None:
    """Check item files before running a model on them.

    Example: store items check my-task.jsonl
    """


@items.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--columns",
    default="",
    metavar="PART=COLUMN,..",
    help="Which keys or columns have question, choices, answer, context, subject and id, e.g. "
    "question=stem,choices=a+b+c+d,answer=key:1,id=nr. [those of these names; A, B, ... for choices]",
)
@format_option
@friendly_errors
def check(file: Path, columns: str, format_: str) -> None:
    """List errors and doubtful items of a file of questions by line; exit code 2 if there is an error.

    FILE is JSON, JSON lines, CSV or Parquet.

    Example: store items check my-task.jsonl
    """
    import polars as pl

    from schemas.errors import ItemError
    from schemas.item_check import DOUBTFUL, WRONG, Finding
    from store.format.item_file import check_item_file, example_of

    def show(findings: Sequence[Finding]) -> None:
        rows = [(line or None, *others) for line, *others in findings]  # what holds for the whole file has no line
        print_table(pl.DataFrame(rows, schema=dict.fromkeys(Finding._fields, pl.String) | {"line": pl.Int64}, orient="row"), format_)

    try:
        n_items, findings = check_item_file(file, columns)
    except ItemError as error:
        if format_ != "table":  # whoever reads stdout with a program finds there what stderr says
            show([Finding(0, "", WRONG, str(error))])
        raise
    if findings or format_ == "json":
        show(findings)
    count = {how: len({(finding.line, finding.id) for finding in findings if finding.how == how}) for how in (WRONG, DOUBTFUL)}
    click.echo(f"read {counted(n_items, 'item')}; wrong: {count[WRONG]}, doubtful: {count[DOUBTFUL]}", err=True)
    if count[WRONG]:
        raise ItemError(f"{file.name} has items that cannot be used; {example_of(file)}")
