"""The `store import` commands: one per format, one line each in `IMPORT_COMMANDS`."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from store.command import friendly_errors, store_option

if TYPE_CHECKING:
    from schemas.itemset import ItemSet
    from schemas.run import Run

P = ParamSpec("P")
R = TypeVar("R")
DESCRIPTION = (
    ("model", "", "Name of the model, where the file does not say."),
    ("method", "dense", "How it was compressed."),
    ("level", "-", "How much it was compressed."),
    ("task", "", "Name of the task, where the file does not say."),
    ("prompt", "imported", "Name of the prompt."),
)
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


def description_options(command: Callable[P, R]) -> Callable[P, R]:
    """Add the options that name what a file does not: model, method, level, task, prompt."""
    for name, default, help_ in DESCRIPTION[::-1]:
        command = click.option(f"--{name}", default=default, show_default=bool(default), help=help_)(command)
    return command


@click.command("zip")
@click.argument("file", type=FILE)
@store_option
@friendly_errors
def zip_(file: Path, store_url: str) -> None:
    """Import a file that `store export` wrote, bit for bit; conflicts are listed and left alone.

    Example: store import zip logits.zip
    """
    from schemas.errors import RunConflictError
    from store.exchange.zip_file import import_zip

    done = import_zip(file, store_url)
    click.echo(f"imported {len(done.copied)} runs into {store_url} at {done.snapshot}; {done.present} were there already", err=True)
    if done.conflicts:
        raise RunConflictError(f"{len(done.conflicts)} runs have other content in {store_url}: {', '.join(done.conflicts[:5])}")


@click.command()
@click.argument("files", nargs=-1, required=True, type=FILE)
@store_option
@description_options
@writing_options
@friendly_errors
def lm_eval(files: tuple[Path, ...], store_url: str, allow_nonfinite: bool, replace: bool, **described: str) -> None:
    """Import lm-evaluation-harness samples of multiple-choice tasks.

    Example: store import lm-eval --model org/name samples_arc_easy_2026-01-02T03-04-05.jsonl
    """
    from store.importers.described import Description
    from store.importers.lm_eval import read_lm_eval

    _import(store_url, read_lm_eval(list(files), Description(**described)), f"import lm-eval {files[0].name}", allow_nonfinite, replace)


@click.command()
@click.argument("file", type=FILE)
@store_option
@description_options
@writing_options
@friendly_errors
def table(file: Path, store_url: str, allow_nonfinite: bool, replace: bool, **described: str) -> None:
    """Import a CSV or Parquet table with columns id, answer, logit_A, logit_B, ...

    Example: store import table --model my-model --task mmlu logits.csv
    """
    from store.importers.described import Description
    from store.importers.table import read_table

    _import(store_url, read_table(file, Description(**described)), f"import {file.name}", allow_nonfinite, replace)


def _import(store_url: str, pairs: "Iterable[tuple[ItemSet, Run]]", message: str, allow_nonfinite: bool, replace: bool) -> None:
    from store.exchange.import_runs import import_runs

    imported = import_runs(store_url, pairs, message, allow_nonfinite=allow_nonfinite, replace=replace)
    click.echo(f"imported {len(imported.names)} runs into {store_url} at {imported.snapshot}", err=True)


IMPORT_COMMANDS = {"ye2024": ye2024, "zip": zip_, "lm-eval": lm_eval, "table": table}
