"""The `store import` commands: one per format, one line each in `IMPORT_COMMANDS`."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from schemas.command import friendly_errors, store_option

if TYPE_CHECKING:
    from schemas.itemset import ItemSet
    from schemas.run import Run

P = ParamSpec("P")
R = TypeVar("R")
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def writing_options(command: Callable[P, R]) -> Callable[P, R]:
    """Add --allow-nonfinite and --replace to an import command."""
    command = click.option("--replace", is_flag=True, help="Replace a run of the same key; the old one stays in the history.")(command)
    return click.option("--allow-nonfinite", is_flag=True, help="Store NaN or infinite logits, flagged.")(command)


@click.command()
@store_option
@click.option("--data", required=True, type=FOLDER, help="Folder with the item JSON.")
@click.option("--logits", required=True, type=FOLDER, help="Folder with {model}_{task}_{prompt}_icl{n}.pkl.")
@writing_options
@friendly_errors
def ye2024(store_url: str, data: Path, logits: Path, allow_nonfinite: bool, replace: bool) -> None:
    """Import the published logits of Ye et al. 2024.

    Example: store import ye2024 --data LLM-Uncertainty-Bench/data --logits LLM-Uncertainty-Bench/outputs_base
    """
    from store.importers.ye2024 import read_ye2024

    _import(store_url, read_ye2024(data, logits), f"import ye2024 from {logits}", allow_nonfinite, replace)


def _import(store_url: str, pairs: "Iterable[tuple[ItemSet, Run]]", message: str, allow_nonfinite: bool, replace: bool) -> None:
    from store.importing import import_runs

    imported = import_runs(store_url, pairs, message, allow_nonfinite=allow_nonfinite, replace=replace)
    click.echo(f"imported {len(imported.names)} runs into {store_url} at {imported.snapshot}", err=True)


IMPORT_COMMANDS = {"ye2024": ye2024}
