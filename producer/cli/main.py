"""The command `produce`: run models here, run a sweep, print a sweep for another scheduler, or only describe what would run."""

import logging
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from producer.request.options import RUN_OPTIONS, SETTINGS_OPTIONS
from schemas.errors import UsageError
from store.backend.user_cache import ensure_temporary_folder
from store.command import ShellCommand, add_options, begin, friendly_errors, log_to_stderr, store_option
from store.shown import counted

if TYPE_CHECKING:
    from producer.request.request import Request

EXAMPLE = """
\b
Examples:
  produce --model ref-m --method wanda --level 0.5 --task urn --limit 200
  produce --plan sweep.toml --executor local --dry-run
  produce --plan tong2026 --only progressive --only llama3.1-8b --dry-run
"""
OWN_PACKAGES = ("schemas", "store", "producer", "analyzer")
LISTED = ["models", "methods", "settings", "tasks", "prompts", "backends", "plans"]


@click.command(cls=ShellCommand, epilog=EXAMPLE, context_settings={"help_option_names": ["-h", "--help"]})
@add_options(RUN_OPTIONS)
@store_option
@add_options(SETTINGS_OPTIONS)
@click.option(
    "--plan",
    type=click.Path(path_type=Path),
    metavar="FILE|NAME",
    help="Run a sweep: all combinations that this TOML file lists, or a published study by its name (--list plans). "
    "Options given here override the file's.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help="Run only this part of the plan: a part, model, method, task or prompt in it, such as progressive. Repeatable.",
)
@click.option("--executor", metavar="NAME", help="Where a sweep runs: local or ray. [local]")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Cells of a sweep that run at a time. [one per GPU]")
@click.option("--emit", type=click.Choice(["sbatch", "k8s", "json"]), help="Print the sweep as a job for another scheduler; run nothing.")
@click.option("--dry-run", is_flag=True, default=None, help="Print the runs with tokens, time and memory; run nothing.")
@click.option("--list", "listed", type=click.Choice(LISTED), help="List the names that can be used.")
@click.option("-v", "--verbose", count=True, help="Say more on stderr: each run as it is written; twice: details for developers.")
@click.version_option(package_name="hedgemark", prog_name="produce", message="%(prog)s %(version)s")
@friendly_errors
def main(*, store_url: str, listed: str | None, verbose: int, **options: Any) -> None:
    """Run models, dense and compressed, over multiple-choice items and store the logits of the options.

    Finished runs are skipped, so after an interruption the same command goes on where it stopped.
    """
    form = "%(levelname)s %(name)s: %(message)s" if verbose else "%(message)s"  # news of a run is no warning to be frightened of
    log_to_stderr(max(logging.DEBUG, logging.WARNING - 10 * verbose), form)
    try:
        if listed:
            from producer.cli.listing import list_names

            lines: Iterable[str] = list_names(listed)
        else:
            lines = _run(store_url, {name: value for name, value in options.items() if value not in ((), None)})
        for line in lines:
            click.echo(line)
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in OWN_PACKAGES:
            raise
        raise UsageError(f"produce needs the package {name}, which is not installed: pip install 'hedgemark[producer]'") from error


def _run(store_url: str, options: dict[str, Any]) -> Iterable[str]:
    """Do what the options say, and return the lines to print on stdout."""
    begin(f"preparing {options.get('plan') or ', '.join(options.get('models', ['runs']))} for {store_url}")
    from producer.machine.free_memory import share_malloc_arena
    from producer.request.request import request_of
    from producer.run.dry_run import describe_runs
    from producer.sweep.sweep_file import read_head, read_sweep

    share_malloc_arena()
    ensure_temporary_folder()
    if not options.get("models") and "plan" not in options and options.get("backend") != "server":
        raise click.UsageError("no --model given; produce --list models shows the known ones")
    requests = read_sweep(options["plan"], options) if "plan" in options else [request_of(options)]
    if "dry_run" in options:
        head = read_head(options["plan"]).lines() if "plan" in options else ()
        return chain(head, describe_runs(requests, store_url, device_kinds="plan" in options))
    if "emit" in options:
        return [_emit(requests, store_url, options["emit"])]
    if "plan" in options:
        return _sweep(requests, store_url, options.get("executor", "local"), options.get("workers", 0))
    return _produce(requests[0], store_url)


def _emit(requests: "list[Request]", store_url: str, form: str) -> str:
    from producer.run.plan import check_request
    from producer.sweep.cells import split
    from producer.sweep.emit import emit

    for request in requests:
        check_request(request)
    return emit(split(requests, store_url), form)


def _sweep(requests: "list[Request]", store_url: str, executor: str, workers: int) -> list[str]:
    from producer.sweep.run import run_sweep

    written = run_sweep(requests, store_url, executor, workers)
    click.echo(f"sweep complete: {counted(len(written), 'run')} written to {store_url}, all others were already stored", err=True)
    return written


def _produce(request: "Request", store_url: str) -> Iterator[str]:
    """Yield the names of the runs written, also of those beside which others failed."""
    from producer.machine.failures import RunsFailedError
    from producer.run.produce import Outcome, produce

    outcome, failed = Outcome(), None
    try:
        produce(request, store_url, show_progress=True, outcome=outcome)
    except RunsFailedError as error:
        failed = error
    if decisions := outcome.decisions.values():
        asked, planned = sum(each.n_items for each in decisions), sum(each.looks[-1] for each in decisions)
        models = counted(len(decisions), "compressed model")
        click.echo(f"asked {models} {asked:,} items of each task in all, where a single look asks {planned:,}", err=True)
    click.echo(f"{counted(len(outcome.written), 'run')} written, {len(outcome.already_stored)} already stored in {store_url}", err=True)
    if (saved := request.settings.save) and saved.is_dir() and not failed:
        click.echo(f"{saved} holds the compressed model; it was loaded again and compared, see its README.md", err=True)
    yield from outcome.written
    if failed:
        raise failed
